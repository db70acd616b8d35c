# What compose.yaml runs, built from source in one image: the services, the web client's pages and the program that places
# the first order. Images that are released hold one service each, compiled outside: services/Dockerfile.
FROM node:22-slim AS pages
WORKDIR /src
COPY services/client/package.json services/client/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
COPY services/client/ ./
RUN npm run bundle

FROM golang:1.26.11 AS build
WORKDIR /src
COPY go.work go.work.sum ./
COPY services/ services/
COPY hack/ hack/
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -buildvcs=false -trimpath -tags grpcnotrace -o /app/ \
    ./services/orders ./services/products ./services/customers ./services/deadletters \
    ./services/gateway ./services/audit ./services/client ./hack/cmd/orderflow

FROM gcr.io/distroless/static-debian12:nonroot
WORKDIR /app
# The developers' program takes the folder with go.work for the repository.
COPY --from=build /app/ /src/go.work ./
COPY --from=pages /src/dist/ pages/
USER 65532:65532
