package admin

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/identity/ca"
)

// Config is what a Server reads from.
type Config struct {
	Pipeline *controlplane.Pipeline
	XDS      *xds.Server // serves the pipeline's cache
	CA       *ca.CA      // nil: Check leaves the certificates out
	// Virtual are the ranges that services get their addresses from. If empty, those of
	// the pipeline's ranges that hold an address of a service.
	Virtual []netip.Prefix
	Now     func() time.Time // nil: time.Now
}

// Server implements apipb.MeshServer.
type Server struct {
	apipb.UnimplementedMeshServer
	pipeline *controlplane.Pipeline
	xds      *xds.Server
	ca       *ca.CA
	virtual  []netip.Prefix
	now      func() time.Time

	mu    sync.Mutex        // guards seen and until
	seen  []xds.ProxyStatus // as of until
	until <-chan struct{}   // closed when seen is out of date
}

// New gives a server. The error names what is missing.
func New(c Config) (*Server, error) {
	if c.Pipeline == nil || c.XDS == nil {
		return nil, errors.New("admin: needs a pipeline and an xDS server")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{pipeline: c.Pipeline, xds: c.XDS, ca: c.CA, virtual: c.Virtual, now: c.Now}, nil
}

// streams are the connected streams as they are now. Asking every stream takes its lock,
// so the answer is kept until the xDS server says that something has changed: a listing
// of 1,000 objects asks once.
func (s *Server) streams() []xds.ProxyStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until != nil {
		select {
		case <-s.until:
		default:
			return s.seen
		}
	}
	s.until = s.xds.Changed() // before looking
	s.seen = s.xds.Status()
	return s.seen
}
