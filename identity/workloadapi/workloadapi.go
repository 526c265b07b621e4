// Package workloadapi serves the X.509 part of the SPIFFE Workload API to an application,
// so that any SPIFFE library can use the identity that Envoy uses. JWT methods are
// UNIMPLEMENTED.
//
// It is registered on the agent's Unix socket to the app (SPIFFE_ENDPOINT_SOCKET) and
// reads an identity/agent; attest.RequireUID restricts who may call. Rules are from the
// SPIFFE Workload Endpoint and Workload API standards.
package workloadapi

import (
	"context"
	"crypto/x509"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Source is where SVID and bundle come from: identity/agent, or anything like it.
type Source interface {
	x509svid.Source
	x509bundle.Source
	// Updated is closed at the next change of SVID or bundle.
	Updated() <-chan struct{}
}

// Server implements the Workload API.
type Server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	source Source
	td     gospiffe.TrustDomain
}

// New makes a server of the source's SVID and of its bundle for the trust domain.
func New(source Source, trustDomain gospiffe.TrustDomain) *Server {
	return &Server{source: source, td: trustDomain}
}

// FetchX509SVID sends SVID, key and bundle, and again at every rotation. It waits for
// the first SVID.
func (s *Server) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	var sent *x509svid.SVID
	var sentBundle *x509bundle.Bundle
	return s.watch(stream.Context(), func() error {
		svid, err := s.source.GetX509SVID()
		if err != nil {
			return nil // not yet
		}
		bundle, err := s.source.GetX509BundleForTrustDomain(s.td)
		if err != nil || svid == sent && bundle.Equal(sentBundle) {
			return nil // not yet, or woken by a change that was read already
		}
		sent, sentBundle = svid, bundle
		chain, key, err := svid.MarshalRaw()
		if err != nil {
			return status.Error(codes.Internal, "the SVID can not be encoded")
		}
		return stream.Send(&workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
			SpiffeId: svid.ID.String(), X509Svid: chain, X509SvidKey: key, Bundle: concat(bundle.X509Authorities()),
		}}})
	})
}

// FetchX509Bundles sends the trust bundle, and again at every change.
func (s *Server) FetchX509Bundles(_ *workload.X509BundlesRequest, stream grpc.ServerStreamingServer[workload.X509BundlesResponse]) error {
	var sent *x509bundle.Bundle
	return s.watch(stream.Context(), func() error {
		bundle, err := s.source.GetX509BundleForTrustDomain(s.td)
		if err != nil || sent != nil && bundle.Equal(sent) {
			return nil // not yet, or only the SVID has changed
		}
		sent = bundle
		return stream.Send(&workload.X509BundlesResponse{
			Bundles: map[string][]byte{s.td.IDString(): concat(bundle.X509Authorities())},
		})
	})
}

// watch calls send now and after every change, until it fails or the stream ends.
func (s *Server) watch(ctx context.Context, send func() error) error {
	if err := checkHeader(ctx); err != nil {
		return err
	}
	for {
		updated := s.source.Updated()
		if err := send(); err != nil {
			return err
		}
		select {
		case <-updated:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// checkHeader refuses calls that a confused browser or proxy could have been tricked
// into making: SPIFFE Workload Endpoint, section 6.
func checkHeader(ctx context.Context) error {
	const header = "workload.spiffe.io"
	if values := metadata.ValueFromIncomingContext(ctx, header); len(values) != 1 || values[0] != "true" {
		return status.Errorf(codes.InvalidArgument, "security header missing from request: send metadata %s: true", header)
	}
	return nil
}

// concat puts DER certificates one behind the other, as the Workload API wants them.
func concat(certs []*x509.Certificate) []byte {
	var out []byte
	for _, cert := range certs {
		out = append(out, cert.Raw...)
	}
	return out
}
