//! The execution daemon: hostel.v1 over gRPC.
