# The worker and the command line. Dependencies are those of uv.lock, to the hash.
FROM python:3.13-slim AS build
RUN pip install --no-cache-dir 'uv>=0.9.9'
WORKDIR /src
ENV UV_PROJECT_ENVIRONMENT=/opt/fuseboard UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --extra worker --extra registry --no-install-project
COPY sdk sdk
COPY schemas schemas
COPY detectors detectors
COPY streams streams
COPY docs/runbooks docs/runbooks
RUN uv sync --frozen --no-dev --extra worker --extra registry --no-editable

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin fuseboard
COPY --from=build /opt/fuseboard /opt/fuseboard
ENV PATH=/opt/fuseboard/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
EXPOSE 9464
ENTRYPOINT ["fuseboard"]
CMD ["--help"]
