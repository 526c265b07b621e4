package api

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
)

var errNotOne = errors.New("not one document")

const (
	maxMessageLines = 20      // of problems in a status message
	maxDetails      = 3 << 10 // bytes of details: they travel base64 in an HTTP/2 trailer with the message, and peers limit headers to 8 to 16 KiB
)

// Invalid is the gRPC status of an input with errors, each in the details as far as they fit.
func Invalid(list manifest.Errors) error {
	lines, details, size := []string(nil), new(apipb.Problems), 0
	for i, e := range list {
		if i < maxMessageLines {
			lines = append(lines, clip(e.Error()))
		}
		if size += len(e.Source) + len(e.Field) + len(e.Message) + 64; size <= maxDetails {
			details.Problems = append(details.Problems, &apipb.Problem{Source: e.Source, Line: int32(e.Line),
				Ref: refPB(e.Ref), Field: e.Field, Message: e.Message})
		}
	}
	if more := len(list) - maxMessageLines; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	s := status.New(codes.InvalidArgument, strings.Join(lines, "\n"))
	if detailed, err := s.WithDetails(details); err == nil {
		s = detailed
	}
	return s.Err()
}

// clip bounds one line: the message of a status is a header.
func clip(line string) string {
	const limit = 300
	if len(line) <= limit {
		return line
	}
	return strings.ToValidUTF8(line[:limit], "") + "..."
}

// Problems are the details of an error of Apply, or nil where it has none.
func Problems(err error) []*apipb.Problem {
	for _, d := range status.Convert(err).Details() {
		if p, ok := d.(*apipb.Problems); ok {
			return p.GetProblems()
		}
	}
	return nil
}

// statusOf is a writer's error as a gRPC status.
func statusOf(err error) error {
	var conflict *state.ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		return status.Error(codes.FailedPrecondition, conflict.Error())
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return status.Errorf(codes.ResourceExhausted, "%v; nothing was changed, free some space", err)
	}
	return status.Error(codes.Internal, err.Error())
}

func refPB(r mesh.Ref) *apipb.Ref {
	return &apipb.Ref{Kind: string(r.Kind), Namespace: r.Namespace, Name: r.Name.Name}
}
