package api

import (
	"context"
	"log/slog"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
)

// MaxMessage is the largest request, in bytes; for grpc.MaxRecvMsgSize of the server
// and for clients to check before they send.
const MaxMessage = 16 << 20

// Config of a Server.
type Config struct {
	Writer  *state.Writer
	Options manifest.Options
	// Identity gives the SPIFFE ID of the connection that a call's context is of.
	Identity IdentityFunc
	// Status gives the status of an object, something encoding/json writes; nil where
	// there is none. It may be nil itself.
	Status func(mesh.Ref) any
	// Settled waits until every connected proxy has answered a revision, or the context is
	// done; nil where there are no proxies.
	Settled func(ctx context.Context, revision uint64) error
	// Grace is how long a workload stays when its stream has ended without a Bye.
	Grace time.Duration
	Log   *slog.Logger
}

// DefaultConfig has all but the writer, options, callbacks and log.
func DefaultConfig() Config {
	return Config{Grace: 30 * time.Second} // longer than a control plane takes to restart
}

// Server implements apipb.ObjectsServer and apipb.WorkloadsServer.
type Server struct {
	apipb.UnimplementedObjectsServer
	apipb.UnimplementedWorkloadsServer
	config   Config
	registry *registry
}

// NewServer makes a server that knows the workloads that were registered before a
// restart. Their grace period begins with Run.
func NewServer(c Config) (*Server, error) {
	r, err := newRegistry(c)
	if err != nil {
		return nil, err
	}
	return &Server{config: c, registry: r}, nil
}

// Decode reads a stored document; it is what state.Writer.Load asks for.
func Decode(o manifest.Options) func(document []byte) (mesh.Object, error) {
	o.Workloads = true
	return func(document []byte) (mesh.Object, error) {
		objects, err := manifest.Parse("", document, o)
		if err != nil {
			return nil, err
		}
		if len(objects) != 1 {
			return nil, errNotOne
		}
		return objects[0].Object, nil
	}
}
