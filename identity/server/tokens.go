package server

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// CreateToken implements the Identity service.
func (s *Server) CreateToken(ctx context.Context, req *identityv1.CreateTokenRequest) (*identityv1.CreateTokenResponse, error) {
	if err := s.checkOwner(ctx); err != nil {
		return nil, err
	}
	id, err := spiffeid.New(s.ca.TrustDomain().Name(), req.GetNamespace(), req.GetService())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := req.GetTtl().CheckValid(); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "ttl: %v", err)
	}
	root := channel.FingerprintOf(s.ca.Bundle().X509Authorities()[0])
	spec := attest.TokenSpec{ID: id, UID: req.Uid, TTL: req.GetTtl().AsDuration(), SingleUse: req.GetSingleUse()}
	token, info, err := s.tokens.Create(spec, root)
	if err != nil {
		return nil, status.Error(codeOf(err), err.Error())
	}
	s.log.Info("created a join token", "token", info.Name, "id", id, "expires", info.Expires)
	return &identityv1.CreateTokenResponse{JoinToken: token.Reveal(), Token: tokenMessage(info)}, nil
}

// ListTokens implements the Identity service.
func (s *Server) ListTokens(ctx context.Context, _ *identityv1.ListTokensRequest) (*identityv1.ListTokensResponse, error) {
	if err := s.checkOwner(ctx); err != nil {
		return nil, err
	}
	response := &identityv1.ListTokensResponse{}
	for _, info := range s.tokens.List() {
		response.Tokens = append(response.Tokens, tokenMessage(info))
	}
	return response, nil
}

// RevokeToken implements the Identity service.
func (s *Server) RevokeToken(ctx context.Context, req *identityv1.RevokeTokenRequest) (*identityv1.RevokeTokenResponse, error) {
	if err := s.checkOwner(ctx); err != nil {
		return nil, err
	}
	if err := s.tokens.Revoke(req.GetName()); err != nil {
		return nil, status.Error(codeOf(err), err.Error())
	}
	s.log.Info("revoked a join token", "token", req.GetName())
	return &identityv1.RevokeTokenResponse{}, nil
}

// checkOwner lets the control plane's own user and root through, on the Unix socket.
func (s *Server) checkOwner(ctx context.Context) error {
	switch peer := attest.FromContext(ctx).Peer; {
	case peer == nil:
		return status.Error(codes.PermissionDenied, "join tokens and roots are managed through the control plane's Unix socket only: run the command on its machine")
	case peer.UID != 0 && peer.UID != s.owner:
		return status.Error(codes.PermissionDenied, fmt.Sprintf("join tokens and roots are managed by uid %d or root, and this process has uid %d", s.owner, peer.UID))
	}
	return nil
}

func tokenMessage(info attest.TokenInfo) *identityv1.Token {
	return &identityv1.Token{
		Name: info.Name, SpiffeId: info.ID.String(), Uid: info.UID, SingleUse: info.SingleUse,
		Created: timestamppb.New(info.Created), Expires: timestamppb.New(info.Expires),
	}
}
