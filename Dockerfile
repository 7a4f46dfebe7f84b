# The gateway and the sluice command in one small image: docs/docker.md.
#
#   docker build -t sluice .
#
# Versions of the images that this one is made from stand here alone. Both are of the same Debian, as the programs use its
# C library.
FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# The same bytes from the same sources: no time of day, and nothing of the machine that debug information would tell.
ARG SOURCE_DATE_EPOCH=0
ENV CARGO_PROFILE_RELEASE_DEBUG=false CARGO_PROFILE_RELEASE_STRIP=symbols

# The dependencies, in a layer that stays until a manifest changes: all members of the workspace, with nothing in them.
COPY Cargo.toml Cargo.lock ./
COPY gateway/Cargo.toml gateway/
COPY publisher-cli/Cargo.toml publisher-cli/
COPY tests/Cargo.toml tests/
RUN mkdir -p gateway/src gateway/benches publisher-cli/src tests/src tests/e2e tests/abuse tests/rolling \
    && touch gateway/src/lib.rs gateway/benches/micro.rs publisher-cli/src/lib.rs tests/src/lib.rs \
    && touch tests/e2e/main.rs tests/abuse/main.rs tests/rolling/main.rs \
    && echo 'fn main() {}' > gateway/src/main.rs \
    && echo 'fn main() {}' > publisher-cli/src/main.rs \
    && cargo build --locked --release -p sluice-gateway -p sluice --bins

COPY gateway/src gateway/src
COPY gateway/console gateway/console
COPY publisher-cli/src publisher-cli/src
# Files keep their times when they are copied. Cargo goes by these, and would take what it has just built for newer.
RUN touch gateway/src/lib.rs gateway/src/main.rs publisher-cli/src/lib.rs publisher-cli/src/main.rs \
    && cargo build --locked --release -p sluice-gateway -p sluice --bins

FROM debian:12.12-slim
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="A horizontally scaled gateway for Server-Sent Events" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
# For rediss:// and the keys of an issuer, whose certificates are checked against the system's.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/sluice/
COPY --from=build /src/target/release/sluice-gateway /src/target/release/sluice /usr/local/bin/
# No name is needed, and a number is what Kubernetes can check (runAsNonRoot).
USER 65532:65532
# Inside a container loopback reaches nobody. The gateway refuses these addresses until it has a key, or is told that it may
# be open (SLUICE_AUTH__OPEN=true), which is for whoever runs the image to decide.
ENV SLUICE_LISTEN=0.0.0.0:8080 SLUICE_ADMIN_LISTEN=0.0.0.0:8081
EXPOSE 8080 8081
# Whether it lives, and not whether it is ready: some restart what is unhealthy, and that Redis is away is no reason to.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["sluice", "health", "http://127.0.0.1:8081/livez"]
ENTRYPOINT ["/usr/local/bin/sluice-gateway"]
