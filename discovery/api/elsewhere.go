package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// Elsewhere answers for the Objects service where objects are kept by another engine.
type Elsewhere struct {
	apipb.UnimplementedObjectsServer
	Advice string // how they are read and written
}

// Apply says where to go.
func (e Elsewhere) Apply(context.Context, *apipb.ApplyRequest) (*apipb.ApplyReply, error) {
	return nil, e.refuse()
}

// Delete says where to go.
func (e Elsewhere) Delete(context.Context, *apipb.DeleteRequest) (*apipb.ApplyReply, error) {
	return nil, e.refuse()
}

// Get says where to go.
func (e Elsewhere) Get(*apipb.GetRequest, grpc.ServerStreamingServer[apipb.Document]) error {
	return e.refuse()
}

func (e Elsewhere) refuse() error {
	return status.Errorf(codes.FailedPrecondition, "the control plane does not keep the objects of this mesh: %s", e.Advice)
}
