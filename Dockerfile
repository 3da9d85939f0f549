# Image with everything installed, run by an ordinary user instead of root:
#
#     docker build -t four-studies .
#     docker run --rm -p 8888:8888 four-studies                                     # JupyterLab
#     mkdir -p out && docker run --rm -u "$(id -u)" -e HOME=/tmp -v "$PWD/out:/out" -e OUTPUT_ROOT=/out four-studies make figures
FROM python:3.11-slim-bookworm

# Debian keeps no older versions that could be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 reader

USER 1000
ENV VIRTUAL_ENV=/home/reader/venv
ENV PATH=$VIRTUAL_ENV/bin:$PATH
WORKDIR /home/reader/four-studies

# The packages rarely change, so they get a layer of their own.
COPY --chown=reader:reader requirements.lock ./
RUN python -m venv "$VIRTUAL_ENV" && pip install --no-cache-dir -r requirements.lock

COPY --chown=reader:reader . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . && python -c "import lib.plots"

# For the user of `docker run -u`, who has no name.
ENV USER=reader

EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--ServerApp.root_dir=/home/reader/four-studies"]
