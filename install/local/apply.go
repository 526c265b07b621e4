package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// apply applies the project's objects that commands may change, once: what a user has
// made of them since stays.
func (s *supervisor) apply(ctx context.Context) error {
	done := s.Project.path("applied")
	if _, err := os.Stat(done); err == nil || len(s.Config.Apply) == 0 {
		return nil
	}
	conn, err := s.Project.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, file := range s.Config.Apply {
		documents, err := os.ReadFile(s.relative(file))
		if err != nil {
			return err
		}
		_, err = apipb.NewObjectsClient(conn).Apply(ctx, &apipb.ApplyRequest{Documents: documents, Source: file})
		if err != nil {
			return fmt.Errorf("apply %s: %w", file, errors.New(status.Convert(err).Message()))
		}
	}
	return os.WriteFile(done, nil, 0o600)
}
