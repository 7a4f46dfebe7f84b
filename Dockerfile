# The gateway and the sluice command in one small image.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin sluice-gateway --bin sluice

FROM debian:bookworm-slim
# For rediss://, whose certificates are checked against the system's.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/sluice-gateway /src/target/release/sluice /usr/local/bin/
# No name is needed, and a number is what Kubernetes can check (runAsNonRoot).
USER 65532:65532
# Inside a container loopback reaches nobody. The gateway refuses these addresses until it is told that it may be open
# (SLUICE_AUTH__OPEN=true), which is for whoever runs the image to decide.
ENV SLUICE_LISTEN=0.0.0.0:8080 SLUICE_ADMIN_LISTEN=0.0.0.0:8081
EXPOSE 8080 8081
ENTRYPOINT ["/usr/local/bin/sluice-gateway"]
