# One image for a CPU, a GPU or a TPU:
#   docker build -t prompt-tuning .
#   docker build -t prompt-tuning:gpu --build-arg EXTRAS=gpu .
#   docker build -t prompt-tuning:tpu --build-arg EXTRAS=tpu,gcs .
#   docker run --rm -v "$PWD/runs:/runs" prompt-tuning train --help
FROM python:3.12-slim

ARG EXTRAS=""
WORKDIR /src
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY prompt_tuning prompt_tuning
COPY gin gin
RUN pip install --no-cache-dir -c constraints.txt ".${EXTRAS:+[$EXTRAS]}" \
  && rm -rf /src

WORKDIR /runs
ENTRYPOINT ["prompt-tuning"]
CMD ["--help"]
