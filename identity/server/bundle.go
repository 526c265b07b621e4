package server

import (
	"google.golang.org/grpc"

	identityv1 "github.com/heddle-mesh/heddle/identity/api"
)

// WatchBundle implements the Identity service.
func (s *Server) WatchBundle(_ *identityv1.WatchBundleRequest, stream grpc.ServerStreamingServer[identityv1.WatchBundleResponse]) error {
	for {
		changed := s.ca.Changed()
		if err := stream.Send(&identityv1.WatchBundleResponse{TrustDomain: s.ca.TrustDomain().Name(), Bundle: s.bundle()}); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (s *Server) bundle() [][]byte {
	var roots [][]byte
	for _, root := range s.ca.Bundle().X509Authorities() {
		roots = append(roots, root.Raw)
	}
	return roots
}
