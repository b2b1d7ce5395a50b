"""The gRPC face of the server: translation only."""
