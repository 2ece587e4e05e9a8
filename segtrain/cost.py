"""What a network costs: parameters and multiply-adds."""

import torch
from torch.utils.flop_counter import FlopCounterMode


def cost(network: torch.nn.Module, image_size: tuple[int, int], in_channels: int) -> dict[str, int | None]:
    """Count a network's trainable parameters, and the multiply-adds of one image in evaluation.

    Args:
        network: On any device; its training mode, module by module, is left as it was.
        image_size: (height, width).
        in_channels: Channels of the image.

    Returns:
        params, and macs: the multiply-adds of convolutions and matrix products, biases and all else left out; None if
        the network has an operator that cannot be counted.
    """
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    image = torch.zeros(1, in_channels, *image_size, device=next(network.parameters()).device)
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(image)
        macs: int | None = counter.get_total_flops() // 2
    except RuntimeError:  # an operator that the counter or the size does not suit
        macs = None
    finally:
        for module, training in modes.items():
            module.training = training
    return {"params": params, "macs": macs}
