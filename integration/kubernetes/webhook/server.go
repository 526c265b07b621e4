package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

const (
	// look is how often the certificate and the webhook configurations are looked at: after
	// somebody has applied a configuration anew, without our CA, pods wait that long.
	look = 10 * time.Second
	// retry is how soon after trouble: while Heddle is installed, the configurations come
	// after the control plane.
	retry = time.Second
	// settle is how long the API servers have to learn a CA from a webhook configuration;
	// they watch it, and need a fraction.
	settle = 10 * time.Second

	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	writeTimeout  = 30 * time.Second // the API server waits 10 at most
	idleTimeout   = 5 * time.Minute
	endTimeout    = 5 * time.Second // for calls that are being answered
	maxHeader     = 16 << 10        // bytes
)

// Config of a Server.
type Config struct {
	Listen    string // ADDRESS:PORT
	Client    *kubernetes.Client
	Namespace string   // of the control plane
	Service   string   // by which the API server calls
	Hosts     []string // other names and addresses by which it calls
	Secret    string   // where the certificate is
	Injector  string   // name of the MutatingWebhookConfiguration
	Validator string   // name of the ValidatingWebhookConfiguration
	Inject    func() inject.Config
	Options   manifest.Options
	// Doubts says what of a valid object is probably wrong; nil: nothing.
	Doubts func(mesh.Object) []string
	Log    *slog.Logger
}

// Server answers admission calls.
type Server struct {
	config  Config
	store   *store
	flight  singleflight.Group // reads of namespaces: 500 pods that start together ask once
	current atomic.Pointer[certificate]
	next    *certificate // written into the configurations at since; not shown yet
	since   time.Time
}

// New makes a server.
func New(c Config) *Server {
	host := c.Service + "." + c.Namespace + ".svc"
	hosts := append([]string{host, host + ".cluster.local"}, c.Hosts...)
	return &Server{config: c, store: &store{c.Client, c.Namespace, c.Secret, hosts}}
}

// Run serves until the context is done.
func (s *Server) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("listen for webhooks: %w", err)
	}
	return s.serve(ctx, l)
}

// serve answers calls from l, which it closes.
func (s *Server) serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	server := &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug), // every port scan is a failed handshake
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.current.Load(); c != nil {
				return c.serving, nil
			}
			return nil, errors.New("no certificate yet")
		}},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve webhooks: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		s.watch(ctx)
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		return server.Shutdown(end)
	})
	return group.Wait()
}

// watch keeps the certificate fresh, and the API server's idea of it. Trouble is told once,
// until it changes.
func (s *Server) watch(ctx context.Context) {
	last := ""
	for {
		wait, err := look, s.step(ctx, time.Now())
		if err == nil {
			last = ""
		} else if wait = retry; err.Error() != last && ctx.Err() == nil {
			s.config.Log.Warn("webhooks: the certificate", "error", err)
			last = err.Error()
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// step takes the certificate of the Secret into use, in the order that never leaves the API
// server with a certificate it does not know: first the CA, then the certificate.
func (s *Server) step(ctx context.Context, now time.Time) error {
	found, err := s.store.ensure(ctx, now)
	if err != nil {
		return err
	}
	err = s.announce(ctx, found.bundle)
	current := s.current.Load()
	if current == nil { // there is no other that the API server could know
		s.current.Store(found)
		current = found
	}
	if err != nil {
		return err
	}
	switch {
	case found.same(current):
		s.next = nil
	case !found.same(s.next):
		s.next, s.since = found, now
	}
	if s.next != nil && (now.Sub(s.since) >= settle || now.After(current.serving.Leaf.NotAfter)) {
		s.current.Store(s.next)
		s.next = nil
		s.config.Log.Info("webhooks: a new certificate", "until", found.serving.Leaf.NotAfter)
	}
	return nil
}

// announce writes the CAs into the webhook configurations.
func (s *Server) announce(ctx context.Context, bundle []byte) error {
	return errors.Join(
		s.config.Client.TrustWebhook(ctx, kubernetes.MutatingWebhooks, s.config.Injector, bundle),
		s.config.Client.TrustWebhook(ctx, kubernetes.ValidatingWebhooks, s.config.Validator, bundle))
}
