"""Serve a Keras model as tutorials do: FastAPI, Pillow and `model.predict` in one handler.

    python benchmarks/rivals/fastapi_predict.py MODEL.keras PORT async|def

With `async`, the handler is a coroutine, in which `model.predict` blocks the server; with `def`, it
runs in FastAPI's threads.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import keras
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

app = FastAPI()
model = keras.models.load_model(sys.argv[1], compile=False)
_, height, width, _ = model.input_shape


def answer(data: bytes) -> dict[str, Any]:
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((width, height))
    outputs = model.predict(np.asarray(image, np.float32)[None], verbose=0)
    logits = outputs[0] if isinstance(outputs, list) else outputs
    return {"label": int(np.argmax(logits[0])), "logits": logits[0].tolist()}


if sys.argv[3] == "async":

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, Any]:
        return answer(await file.read())

else:

    @app.post("/predict")
    def predict_in_a_thread(file: UploadFile) -> dict[str, Any]:
        return answer(file.file.read())


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), access_log=False)
