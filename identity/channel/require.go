package channel

import (
	"context"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

type peerIDKey struct{}

// PeerID is the verified identity of a gRPC call's client. It reports false for a call
// that came without an SVID, which RequireSVID lets through for open methods only.
func PeerID(ctx context.Context) (spiffeid.ID, bool) {
	id, ok := ctx.Value(peerIDKey{}).(spiffeid.ID)
	return id, ok
}

// RequireSVID returns interceptors that refuse every call without a valid SVID of the
// trust domain (UNAUTHENTICATED), but for the methods in open, given in full as
// "/package.Service/Method". The SVID is verified when a call starts, so a connection
// that outlives it takes no new calls; a stream goes on.
func RequireSVID(bundle x509bundle.Source, trustDomain gospiffe.TrustDomain, open ...string) []grpc.ServerOption {
	admit := func(ctx context.Context, method string) (context.Context, error) {
		chain := attest.FromContext(ctx).Certificates
		if len(chain) == 0 {
			if slices.Contains(open, method) {
				return ctx, nil
			}
			return nil, status.Errorf(codes.Unauthenticated, "%s needs a client certificate: present an SVID of %s", method, trustDomain.IDString())
		}
		id, err := verify(chain, bundle, trustDomain)
		if err != nil {
			return nil, status.Errorf(codes.Unauthenticated, "client certificate: %v; connect again with a current SVID", err)
		}
		return context.WithValue(ctx, peerIDKey{}, id), nil
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		ctx, err := admit(ctx, info.FullMethod)
		if err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, err := admit(ss.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		return handler(srv, admittedStream{ss, ctx})
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}

type admittedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s admittedStream) Context() context.Context { return s.ctx }
