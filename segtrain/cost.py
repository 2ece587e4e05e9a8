"""What a network costs: parameters and multiply-adds."""

import torch
from torch.utils.flop_counter import FlopCounterMode


def cost(network: torch.nn.Module, image_size: tuple[int, int], in_channels: int) -> dict[str, int | None]:
    """Count a network's trainable parameters, and the multiply-adds of one image of (height, width) in evaluation."""
    params = sum(p.numel() for p in network.parameters() if p.requires_grad)
    sample = next(network.parameters())
    image = torch.zeros(1, in_channels, *image_size, device=sample.device)
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(image)
        macs: int | None = counter.get_total_flops() // 2
    except (RuntimeError, NotImplementedError):  # an operator that the counter or the size does not suit
        macs = None
    network.train(training)
    return {"params": params, "macs": macs}
