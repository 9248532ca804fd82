"""The gRPC edge: translation between protobuf and the domain, and the steps every call passes."""
