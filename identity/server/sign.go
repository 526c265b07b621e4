package server

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// SignSVID implements the Identity service.
func (s *Server) SignSVID(ctx context.Context, req *identityv1.SignSVIDRequest) (*identityv1.SignSVIDResponse, error) {
	evidence := attest.FromContext(ctx)
	evidence.Token = attest.JoinToken(req.GetJoinToken())
	evidence.ServiceAccountToken = attest.ServiceAccountToken(req.GetServiceAccountToken())
	from := peerName(ctx, evidence)
	if !s.rate.allow(from) {
		return nil, status.Errorf(codes.ResourceExhausted, "too many SVID requests from %s: wait a second and try again", from)
	}
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	id, response, err := s.sign(ctx, req, evidence)
	if err != nil {
		s.log.Warn("refused an SVID", "peer", from, "id", id, "error", err)
		return nil, status.Error(codeOf(err), err.Error())
	}
	s.log.Debug("issued an SVID", "peer", from, "id", id, "expires", response.GetExpires().AsTime())
	return response, nil
}

// sign reads the request first, so that a malformed one spends no single-use token.
func (s *Server) sign(ctx context.Context, req *identityv1.SignSVIDRequest, evidence attest.Evidence) (id spiffeid.ID, _ *identityv1.SignSVIDResponse, err error) {
	if req.GetNamespace() != "" || req.GetService() != "" {
		evidence.Requested, err = spiffeid.New(s.ca.TrustDomain().Name(), req.GetNamespace(), req.GetService())
		if err != nil {
			return id, nil, fmt.Errorf("%w: %v", errRequest, err)
		}
	}
	csr, err := ca.ParseCSR(req.GetCsr())
	if err != nil {
		return id, nil, err
	}
	who, err := s.attest(ctx, evidence)
	if err != nil {
		return evidence.Requested, nil, err
	}
	id = who.ID
	chain, err := s.ca.SignFor(csr, id, who.Token)
	if err != nil {
		return id, nil, err
	}
	response := &identityv1.SignSVIDResponse{Bundle: s.bundle(), Expires: timestamppb.New(chain[0].NotAfter)}
	for _, cert := range chain {
		response.Chain = append(response.Chain, cert.Raw)
	}
	return id, response, nil
}

// errRequest is the kind of error of a request that is malformed outside of its CSR.
var errRequest = errors.New("bad request")

// codeOf maps the kinds of errors to gRPC status codes.
func codeOf(err error) codes.Code {
	for _, kind := range []struct {
		err  error
		code codes.Code
	}{
		{errRequest, codes.InvalidArgument},
		{ca.ErrCSR, codes.InvalidArgument},
		{ca.ErrIdentity, codes.PermissionDenied},
		{attest.ErrDenied, codes.PermissionDenied},
		{attest.ErrUnauthenticated, codes.Unauthenticated},
		{attest.ErrNoToken, codes.NotFound},
		{attest.ErrSpec, codes.InvalidArgument},
		{attest.ErrFull, codes.ResourceExhausted},
	} {
		if errors.Is(err, kind.err) {
			return kind.code
		}
	}
	return codes.Internal
}

// peerName names who asks, for the rate limit and the log: a Unix user, the identity in
// an SVID, or an address without its port.
func peerName(ctx context.Context, e attest.Evidence) string {
	if e.Peer != nil {
		return fmt.Sprintf("uid %d", e.Peer.UID)
	}
	if len(e.Certificates) > 0 && len(e.Certificates[0].URIs) == 1 {
		return e.Certificates[0].URIs[0].String()
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "unknown"
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		return host
	}
	return p.Addr.String()
}
