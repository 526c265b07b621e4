package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/heddle-mesh/heddle/identity/agent"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/envoy"
	"github.com/heddle-mesh/heddle/proxy/relay"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// patience is how long a sidecar that has a last good configuration waits for a control
// plane before it goes on without.
const patience = 2 * time.Second

// Sidecar is a running sidecar.
type Sidecar struct {
	config    Config
	log       *slog.Logger
	identity  *agent.Agent
	conn      *grpc.ClientConn // to the control plane, with our SVID
	network   *capture.Network // nil in Explicit and Pod
	ns        *capture.Namespace
	ports     []port
	register  *registration // nil in a pod, whose object is the registration
	named     chan struct{} // closed when the first names are here
	restarted atomic.Bool   // in a pod: there was a configuration from before
	relay     *relay.Relay
	keep      sync.Once                 // saves the first whole configuration of a pod's
	served    atomic.Bool               // whether serving has answered yes
	overdue   atomic.Pointer[error]     // in a pod: what is missing at the end of Hold
	coming    atomic.Pointer[time.Time] // in a pod: since when only the rest of the configuration was missing
	admin     *envoy.Admin
	ending    atomic.Bool                       // of a pod's
	children  atomic.Pointer[supervise.Sidecar] // nil until they are started
	waiting   chan struct{}                     // holds an element for each client that waits for us to serve
}

// Run runs a sidecar until its application ends or the context is done. It returns the
// application's exit code, or an error that says what could not be set up.
func Run(ctx context.Context, config Config) (code int, err error) {
	if err := config.Validate(); err != nil {
		return 1, err
	}
	s := &Sidecar{
		config: config, log: config.Log.With("workload", config.Workload),
		named: make(chan struct{}), waiting: make(chan struct{}, 1), // the kubelet has one probe at a time
	}
	if err := s.setUp(ctx); ctx.Err() != nil {
		return 0, s.close() // asked to end before it began
	} else if err != nil {
		return 1, errors.Join(err, s.close())
	}
	code, err = s.run(ctx)
	return code, errors.Join(err, s.close())
}

// setUp makes what the parts of a sidecar stand on.
func (s *Sidecar) setUp(ctx context.Context) (err error) {
	c := s.config
	if err := c.Pod.verifyCapture(ctx); err != nil {
		return err
	}
	if err := c.makeDirs(s.proxyUID(), s.appUID()); err != nil {
		return err
	}
	id := agent.Config{
		ID: c.ID, Dir: filepath.Join(c.StateDir, "identity"), Token: c.Token,
		Socket: c.Socket, Address: c.Address, Log: s.log,
	}
	if c.Pod != nil {
		id.TokenFile, id.Roots = c.Pod.TokenFile, c.Pod.Roots
	}
	if s.identity, err = agent.New(id); err != nil {
		return err
	}
	if s.conn, err = s.dial(); err != nil {
		return err
	}
	if err := s.setUpNetwork(ctx); err != nil {
		return err
	}
	if s.ports, err = s.choosePorts(ctx); err != nil {
		return err
	}
	if c.Pod == nil {
		s.register = newRegistration(s.conn, s.workload(), s.log)
	}
	s.admin = envoy.NewAdmin(c.path(adminSocket))
	s.relay, err = relay.New(relay.Config{
		Upstream: s.conn, Dir: filepath.Join(c.StateDir, "config"), Log: s.log,
	})
	return err
}

// dial connects lazily to the control plane's TCP port: gRPC tries again for ever.
func (s *Sidecar) dial() (*grpc.ClientConn, error) {
	server, err := channel.ControlPlane(s.config.ID.TrustDomain())
	if err != nil {
		return nil, err
	}
	config, err := channel.Client(s.identity, s.identity, server)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+s.config.Address, append(channel.ClientAlive(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithConnectParams(connectParams))...)
}

func (s *Sidecar) setUpNetwork(ctx context.Context) (err error) {
	c := s.config
	switch c.Capture {
	case capture.Explicit:
		s.ns = capture.HostNamespace(s.log)
		return nil
	case capture.Pod:
		s.ns = capture.PodNamespace(s.log)
		return nil
	}
	if s.network, err = capture.OpenNetwork(ctx, c.Network); err != nil {
		return err
	}
	s.ns, err = s.network.NewNamespace(ctx, capture.NamespaceConfig{
		Name: c.ID.Namespace() + "." + c.Workload, Named: true, Rules: capture.DefaultRules(c.Capture),
	})
	return err
}

// run runs the parts until the children have ended. The agent's parts outlive them: the
// last requests need them.
func (s *Sidecar) run(ctx context.Context) (code int, err error) {
	parts, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, parts := errgroup.WithContext(parts)
	group.Go(func() error { return s.identity.Run(parts) })
	if s.register != nil {
		group.Go(func() error {
			if s.identity.Ready(parts) == nil {
				s.register.run(parts)
			}
			return nil
		})
	}
	group.Go(func() error { return s.serveNames(parts) })
	if err := s.serveSockets(parts, group); err != nil {
		stop()
		return 1, errors.Join(err, group.Wait())
	}
	// A part that cannot go on ends the application too, in order.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	context.AfterFunc(parts, func() { cancel(context.Cause(parts)) })
	if err = s.ready(ctx); err == nil {
		code, err = s.runChildren(ctx, parts, group)
	} else if code = 1; ctx.Err() != nil {
		code, err = 0, nil // asked to end before it began
	}
	if late := s.unserved(); late != nil {
		code, err = 1, errors.Join(err, late)
	}
	s.sayGoodbye(parts)
	stop()
	return code, errors.Join(err, ignoreCanceled(group.Wait()))
}

// ready waits until the workload has an identity and is registered, or has what it had
// before from disk.
func (s *Sidecar) ready(ctx context.Context) error {
	if s.config.Pod != nil {
		return s.podReady(ctx)
	}
	if err := s.identity.Ready(ctx); err != nil {
		return fmt.Errorf("get an identity: %w", err)
	}
	if len(s.relay.Held()) > 0 { // the control plane may be away: go on from the last good configuration
		brief, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := s.register.await(brief); errors.Is(err, context.DeadlineExceeded) {
			s.log.Warn("the control plane is away, starting from the last good configuration")
			return nil
		} else if err != nil {
			return fmt.Errorf("register the workload: %w", err)
		}
		return nil
	}
	if err := s.register.await(ctx); err != nil {
		return fmt.Errorf("register the workload: %w", err)
	}
	return nil
}

// sayGoodbye takes the workload out of the mesh; if the control plane is away, the end
// of its grace period does.
func (s *Sidecar) sayGoodbye(ctx context.Context) {
	if s.register == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.register.leave(ctx); err != nil {
		s.log.Warn("leave the mesh", "error", err)
	}
}

func (s *Sidecar) close() error {
	var errs []error
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	if s.network != nil {
		errs = append(errs, s.network.Close())
	}
	return errors.Join(errs...)
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// trustDomain is the workload's, in go-spiffe's terms.
func (s *Sidecar) trustDomain() gospiffe.TrustDomain {
	return gospiffe.RequireTrustDomainFromString(s.config.ID.TrustDomain()) // an ID is well formed
}
