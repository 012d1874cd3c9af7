# Serves one exported model, mounted at /model: docker run -p 127.0.0.1:8000:8000 -v "$PWD/DIR:/model:ro" faceattr
# Without torch. docs/serving.md says more.
FROM python:3.13-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 faceattr
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-deps /wheels/*.whl \
    && pip install --no-cache-dir "onnxruntime>=1.20" "numpy>=2.0" "pandas>=2.2,<4" "pillow>=11" "opencv-python-headless>=5,<6" \
        "hydra-core>=1.3.6,<1.4" "omegaconf>=2.3,<2.4" "filelock>=3.12" "tqdm>=4.66" \
        "starlette>=0.48" "uvicorn>=0.34" "python-multipart>=0.0.20"
USER 10001
WORKDIR /home/faceattr
EXPOSE 8000
HEALTHCHECK --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["faceattr", "serve", "ckpt=/model", "host=0.0.0.0"]
