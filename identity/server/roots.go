package server

import (
	"context"
	"encoding/hex"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
)

// ListRoots implements the Identity service.
func (s *Server) ListRoots(ctx context.Context, _ *identityv1.ListRootsRequest) (*identityv1.ListRootsResponse, error) {
	if err := s.checkOwner(ctx); err != nil {
		return nil, err
	}
	return s.roots(), nil
}

// RotateRoot implements the Identity service.
func (s *Server) RotateRoot(ctx context.Context, _ *identityv1.RotateRootRequest) (*identityv1.ListRootsResponse, error) {
	if err := s.checkOwner(ctx); err != nil {
		return nil, err
	}
	if !s.ca.Due().IsZero() {
		return nil, status.Error(codes.FailedPrecondition, "a rotation is under way already; heddle ca show says how far it is")
	}
	if err := s.rotate(ctx); errors.Is(err, ca.ErrIssued) {
		return nil, status.Error(codes.FailedPrecondition, "this mesh's certificates are issued by somebody else: replace the root there, and the control plane takes it from the Secret")
	} else if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	s.log.Info("a rotation of the root has begun", "trust_domain", s.ca.TrustDomain().Name(), "next", s.ca.Due())
	return s.roots(), nil
}

func (s *Server) roots() *identityv1.ListRootsResponse {
	expiry := s.ca.Expiry()
	out := &identityv1.ListRootsResponse{Issued: expiry.Issued, IntermediateExpires: timestamppb.New(expiry.Intermediate)}
	for _, r := range s.ca.Roots() {
		fingerprint := channel.FingerprintOf(r.Cert)
		root := &identityv1.Root{
			Fingerprint: hex.EncodeToString(fingerprint[:]), Created: timestamppb.New(r.Cert.NotBefore), Expires: timestamppb.New(r.Cert.NotAfter),
			Role: map[ca.Role]identityv1.Root_Role{ca.Signing: identityv1.Root_SIGNING, ca.Prepared: identityv1.Root_PREPARED, ca.Former: identityv1.Root_FORMER}[r.Role],
		}
		if !r.Due.IsZero() {
			root.Due = timestamppb.New(r.Due)
		}
		out.Roots = append(out.Roots, root)
	}
	return out
}
