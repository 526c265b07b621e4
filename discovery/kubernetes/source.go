package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// waitTold is how often it is said what a source waits for before it is synced.
const waitTold = 10 * time.Second

// Config of a Source.
type Config struct {
	REST    *rest.Config
	Options manifest.Options // trust domain and cluster domain are needed
	// Submit takes changes into the mesh, all or none of them.
	Submit func([]mesh.Change) (revision uint64, err error)
	Log    *slog.Logger
	// Settle is how long changes must be quiet before they are submitted, and Burst how
	// long they may go on without: a Deployment that rolls is a few changes, not hundreds.
	Settle, Burst time.Duration
	// Retry is how often it is looked whether kinds have been installed meanwhile, and
	// whether the mesh takes what it has refused.
	Retry time.Duration
	// Gateway is the namespace and service account of the proxies that serve the cluster's
	// Ingresses; the zero Name: there are none, and neither Ingresses nor Secrets are read.
	Gateway mesh.Name
	// Secrets is how often the Secrets that Ingresses name are read.
	Secrets time.Duration
}

// DefaultConfig has all but the API server, the options, Submit and the log.
func DefaultConfig() Config {
	return Config{Settle: 10 * time.Millisecond, Burst: 100 * time.Millisecond, Retry: 5 * time.Second, Secrets: 10 * time.Second}
}

func (c Config) validate() error {
	switch {
	case c.REST == nil || c.Submit == nil || c.Log == nil:
		return errors.New("source of a cluster's objects: REST, Submit and Log are needed")
	case c.Options.TrustDomain == "" || c.Options.ClusterDomain == "":
		return errors.New("source of a cluster's objects: Options need a trust domain and a cluster domain")
	case c.Settle <= 0 || c.Burst < c.Settle || c.Retry <= 0 || c.Secrets <= 0:
		return fmt.Errorf("source of a cluster's objects: Settle %s, Burst %s, Retry %s and Secrets %s; begin with DefaultConfig", c.Settle, c.Burst, c.Retry, c.Secrets)
	}
	return nil
}

// Source brings a cluster's objects into the mesh.
type Source struct {
	config   Config
	client   rest.Interface
	watched  []*watched
	kinds    kinds
	dirty    chan struct{} // holds an element while a table has changed
	synced   chan struct{}
	rejected *rejections
	// certificates are nil without a gateway.
	certificates *certificates

	view      *view             // Run's
	closed    map[mesh.Ref]bool // policies that are in force by manifest.ClosedPolicy; Run's
	submitter *submitter        // Run's
	tried     time.Time         // when what the mesh refuses was submitted last; Run's
}

// New makes a source. It does not connect yet.
func New(c Config) (*Source, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	client, err := newClient(c.REST)
	if err != nil {
		return nil, err
	}
	s := &Source{
		config: c, client: client, view: newView(), closed: map[mesh.Ref]bool{}, rejected: newRejections(),
		dirty: make(chan struct{}, 1), synced: make(chan struct{}),
	}
	s.submitter = &submitter{submit: c.Submit, rejected: s.rejected, log: c.Log,
		inForce: map[mesh.Ref]mesh.Object{}, refused: map[mesh.Ref]mesh.Change{}, unreadable: map[mesh.Ref]bool{}}
	s.openKinds()
	return s, nil
}

// Synced is closed when everything that there is has been submitted for the first time.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Pod gives a pod as it was seen last.
func (s *Source) Pod(namespace, name string) (Pod, bool) {
	p, ok, _ := s.kinds.pods.lookup(mesh.Name{Namespace: namespace, Name: name})
	if !ok {
		return Pod{}, false
	}
	return p.Pod, true
}

// AwaitPod gives a pod, waiting until the context is done for one that is not known yet:
// its agent may ask before the watch has brought it. With a UID it waits for that pod: an
// earlier one of the same name, as in a StatefulSet, is not the one that asks.
func (s *Source) AwaitPod(ctx context.Context, namespace, name, uid string) (Pod, error) {
	n := mesh.Name{Namespace: namespace, Name: name}
	for {
		p, ok, changed := s.kinds.pods.lookup(n)
		if ok && (uid == "" || uid == p.UID) {
			return p.Pod, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Pod{}, fmt.Errorf("wait for pod %s: %w", n, context.Cause(ctx))
		}
	}
}

// Run reads and watches until the context is done.
func (s *Source) Run(ctx context.Context) error {
	// What client-go has to say is for those who look into a source that misbehaves.
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(quiet{s.config.Log.Handler()}))
	var group sync.WaitGroup
	defer group.Wait()
	h := newHealth(s.config.Log)
	for _, w := range s.watched {
		group.Go(func() { w.run(ctx, s.client, s.config.Retry, h) })
	}
	if !s.awaitAll(ctx) {
		return nil
	}
	s.look()
	if s.certificates != nil {
		if !s.certificates.readAll(ctx) {
			return nil
		}
		group.Go(func() { s.certificates.run(ctx) })
		s.look()
	}
	for complete := s.submitter.bring(s.view.take()); ; {
		if complete {
			s.sayOnce()
		}
		changed, ok := s.settle(ctx)
		if !ok {
			return nil
		}
		if changed {
			s.look()
			s.submitter.bring(s.view.take())
		} else {
			complete = s.submitter.again()
			s.tried = time.Now()
		}
	}
}

// awaitAll waits until all tables are full; false is the end.
func (s *Source) awaitAll(ctx context.Context) bool {
	told := time.NewTicker(waitTold)
	defer told.Stop()
	for _, w := range s.watched {
		for full := false; !full; {
			select {
			case <-w.full:
				full = true
			case <-told.C:
				s.config.Log.Info("waiting for the objects of the cluster", "resource", w.resource.path)
			case <-ctx.Done():
				return false
			}
		}
	}
	return true
}

func (s *Source) sayOnce() {
	select {
	case <-s.synced:
	default:
		close(s.synced)
	}
}

// settle waits for changes, and then until there are no more for a moment. Where the mesh
// has refused something, it does not wait longer than Retry; there are no changes then.
func (s *Source) settle(ctx context.Context) (changed, ok bool) {
	var retry <-chan time.Time
	if len(s.submitter.refused) == 0 {
		s.tried = time.Now()
	} else {
		retry = time.After(time.Until(s.tried.Add(s.config.Retry)))
	}
	select {
	case <-s.dirty:
	case <-retry:
		return false, true
	case <-ctx.Done():
		return false, false
	}
	burst := time.After(s.config.Burst)
	for {
		select {
		case <-s.dirty:
		case <-time.After(s.config.Settle):
			return true, true
		case <-burst:
			return true, true
		case <-ctx.Done():
			return false, false
		}
	}
}
