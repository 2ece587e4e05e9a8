"""Colour the classes of an image: python run_onnx.py model.onnx image.png mask.png

It needs onnxruntime, numpy and Pillow, and nothing of segtrain. model.onnx is what segtrain task=export writes.
"""
import json
import os
import sys

import numpy as np
from PIL import Image

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime reports to Microsoft from 1.29 on
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = np.asarray(Image.open(sys.argv[2]).convert("RGB"))  # (H, W, 3), 0..255
if session.get_inputs()[0].type == "tensor(uint8)":  # exported with task.labels=true
    labels = session.run(["labels"], {"image": image[None]})[0][0]
else:
    labels = session.run(["logits"], {"image": image.transpose(2, 0, 1)[None].astype("float32")})[0][0].argmax(0)
about = session.get_modelmeta().custom_metadata_map
names, colors = json.loads(about["classes"]), np.array(json.loads(about["colors"]), dtype=np.uint8)
Image.fromarray(colors[labels]).save(sys.argv[3])
for name, count in zip(names, np.bincount(labels.ravel(), minlength=len(names)), strict=True):
    print(f"{100 * count / labels.size:5.1f} %  {name}")
