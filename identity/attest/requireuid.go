package attest

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// RequireUID returns interceptors for a server with UnixCredentials that refuse
// (PERMISSION_DENIED) every call of a process whose user is none of uids.
func RequireUID(uids ...uint32) []grpc.ServerOption {
	check := func(ctx context.Context) error {
		peer := FromContext(ctx).Peer
		if peer == nil {
			return status.Error(codes.PermissionDenied, "only for processes of this machine, through the Unix socket")
		}
		if !slices.Contains(uids, peer.UID) {
			return status.Errorf(codes.PermissionDenied, "this socket is for uid %v, and this process has uid %d", uids, peer.UID)
		}
		return nil
	}
	unary := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := check(ctx); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if err := check(ss.Context()); err != nil {
			return err
		}
		return handler(srv, ss)
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}
