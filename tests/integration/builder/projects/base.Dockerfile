# What the projects' own base images (python, node, gcc) would bring, on one Debian: the one thing that is adapted.
FROM debian:bookworm
RUN <<EOT
set -e
apt-get update -q
apt-get install -q -y --no-install-recommends ca-certificates gcc libc6-dev nodejs python3-pip
rm -rf /var/lib/apt/lists/*
ln -s python3 /usr/bin/python
EOT
# the certificates of this host, which may trust a mirror of its own
COPY ca-certificates.crt /etc/ssl/certs/
ADD --unpack --checksum=sha256:5cd1e5ab971ea6333f910bc2d50700167c5ef4e66da279b2a3efc874c6b116e4 \
    https://registry.npmjs.org/npm/-/npm-10.9.2.tgz /opt/npm/
RUN ln -s /opt/npm/package/bin/npm-cli.js /usr/local/bin/npm && chmod +x /opt/npm/package/bin/npm-cli.js
ENV PIP_BREAK_SYSTEM_PACKAGES=1
