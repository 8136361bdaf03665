# The programs alone, built beforehand: `make image`. It has no shell and needs none, and building the image needs no network.
FROM scratch
ARG TARGETARCH
COPY --chmod=0755 bin/tapbridge-${TARGETARCH} /tapbridge
COPY --chmod=0755 bin/tapbridge-agent-${TARGETARCH} /tapbridge-agent
ENTRYPOINT ["/tapbridge"]
CMD ["install", "-stay", "/opt/cni/bin"]
