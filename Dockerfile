# Use and serve classifiers in a container, without TensorFlow. Build it in this folder:
#
#   docker build -t kindsight .
#   docker run --rm -v "$PWD:/data:ro" kindsight predict runs/photos-1 new/
#
# docs/container.md has its size, the options of a server, and how a bundle is put into it.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
# pip stays outside of the environment.
RUN python -m venv --without-pip /opt/kindsight \
    && pip --python /opt/kindsight/bin/python install --no-cache-dir '.[serve]'

FROM python:${PYTHON}-slim
COPY --from=build /opt/kindsight /opt/kindsight
RUN useradd --uid 10001 --create-home kindsight
ENV PATH=/opt/kindsight/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["kindsight"]
CMD ["--help"]
