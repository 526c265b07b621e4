package sidecar

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/dns"
	"github.com/heddle-mesh/heddle/proxy/bootstrap"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/supervise"
)

// runChildren runs Envoy and the application, and says to the mesh whether the
// application is ready.
func (s *Sidecar) runChildren(ctx, parts context.Context, group *errgroup.Group) (int, error) {
	config := s.bootstrap()
	file := s.config.path(bootstrapFile)
	if err := bootstrap.Write(config, file, s.proxyUID()); err != nil {
		return 1, err
	}
	program, err := os.Open(s.config.Envoy)
	if err != nil {
		return 1, fmt.Errorf("open Envoy: %w", err)
	}
	defer program.Close()
	plan := supervise.SidecarConfig{
		Envoy: supervise.Spec{
			Name: "envoy", Ready: s.admin.Ready, Grace: s.config.Drain + 5*time.Second,
			Start: func(context.Context) (*exec.Cmd, error) {
				// By descriptor: Envoy's user need not reach the folder that it lies in.
				return s.ns.Command(parts, s.ns.ProxyExec(capture.Exec{
					Argv:       append([]string{"/proc/self/fd/3", "--drain-strategy", "immediate"}, bootstrap.Command(config, file)...),
					ExtraFiles: []*os.File{program},
					Env:        s.envoyEnv(),
					Stdout:     os.Stdout, Stderr: os.Stderr,
				}))
			},
			Launch: s.ns.Start,
		},
		Drain:     s.drain,
		DrainTime: s.config.Drain,
	}
	switch {
	case s.config.gateway():
		plan.Drain = s.drainGateway
	case s.config.Pod != nil:
		plan.Drain, plan.DrainTime = s.drainPod, 0
	}
	if len(s.config.Command) > 0 {
		plan.App = s.app(parts)
	}
	children := supervise.NewSidecar(plan, s.log)
	_, app := children.Processes()
	s.children.Store(children)
	if s.register != nil {
		group.Go(func() error { s.announce(parts, app); return nil })
	}
	group.Go(func() error {
		select {
		case <-s.config.Hurry:
			children.Kill()
		case <-parts.Done():
		}
		return nil
	})
	defer os.Remove(s.config.path(adminSocket)) // Envoy leaves it
	return children.Run(ctx)
}

// changeDrain is how long connections go on under the configuration that they were made
// under when their listener changes; then Envoy cuts them, whatever they are doing. HTTP
// is asked to reconnect at the next answer, from the first moment on (drain strategy
// "immediate"), which also serves a drain at the end that is much shorter than this.
const changeDrain = 45 * time.Second

func (s *Sidecar) bootstrap() bootstrap.Config {
	c := bootstrap.DefaultConfig()
	c.ID = s.config.ID.Namespace() + "/" + s.config.Workload
	c.Cluster = s.config.ID.ServiceAccount() + "." + s.config.ID.Namespace()
	c.Zone = s.config.Zone
	c.AdminSocket, c.AgentSocket = s.config.path(adminSocket), s.config.path(envoySocket)
	c.Drain = changeDrain
	if s.config.Concurrency > 0 {
		c.Concurrency = s.config.Concurrency
	}
	if s.config.LogLevel != "" {
		c.LogLevel = s.config.LogLevel
	}
	if s.ns.Mode() == capture.Rootless {
		c.Mark = capture.DefaultProxyMark
	}
	if s.config.Pod != nil {
		c.MaxHeap = heapLimit(c.MaxHeap)
	}
	return c
}

// envoyEnv names the proxy in its traces: after its service, as people look for it.
func (s *Sidecar) envoyEnv() []string {
	attributes := fmt.Sprintf("service.name=%s,service.namespace=%s,service.instance.id=%s",
		s.config.ID.ServiceAccount(), s.config.ID.Namespace(), s.config.Workload)
	if s.config.Zone != "" { // Envoy takes no empty attribute
		attributes += ",heddle.zone=" + s.config.Zone
	}
	return []string{"OTEL_RESOURCE_ATTRIBUTES=" + attributes}
}

func (s *Sidecar) app(parts context.Context) supervise.Spec {
	return supervise.Spec{
		Name: "app",
		Start: func(context.Context) (*exec.Cmd, error) {
			return s.ns.Command(parts, capture.Exec{
				Argv: s.config.Command, Dir: s.config.Dir, User: s.config.User, Env: s.appEnv(),
				ResolvConf: s.resolvconf(),
				Stdin:      os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
			})
		},
		Launch: s.ns.Start,
		Ready:  s.appReady, Recheck: s.recheck(),
	}
}

// appEnv is the application's environment: ours and what the mesh offers.
func (s *Sidecar) appEnv() []string {
	env := append(os.Environ(), s.config.Env...)
	env = append(env, "SPIFFE_ENDPOINT_SOCKET=unix://"+s.config.path(workloadSocket))
	if s.config.Collector != "" {
		endpoint := "http://" + s.config.Collector
		if s.network != nil {
			endpoint = "http://127.0.0.1:4317" // the agent's, inside the namespace
		}
		env = append(env, "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc")
	}
	return env
}

func (s *Sidecar) resolvconf() []byte {
	if s.network == nil {
		return nil
	}
	return dns.Resolvconf(s.config.ID.Namespace(), s.config.ClusterDomain, dnsAddress)
}

// recheck is how often the application is asked whether it still is ready. Where it has no
// path for that it is not asked: connections that say nothing fill a database's log.
func (s *Sidecar) recheck() time.Duration {
	if s.config.ReadyHTTP == "" {
		return 0
	}
	return time.Second
}

// appReady asks the application as the mesh's clients would: by HTTP where a path is
// given, else by a connection to each of its ports.
func (s *Sidecar) appReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, p := range s.config.Ports {
		if err := s.ask(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p.Local)))); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sidecar) ask(ctx context.Context, address string) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return s.ns.Dial(ctx, "tcp", address) }
	if s.config.ReadyHTTP == "" {
		conn, err := dial(ctx, "", "")
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+s.config.ReadyHTTP, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s answers %s", s.config.ReadyHTTP, resp.Status)
	}
	return nil
}

// announce keeps the registration's readiness equal to the application's.
func (s *Sidecar) announce(ctx context.Context, app *supervise.Process) {
	for {
		status, changed := app.Status()
		ready := status.State == supervise.Ready || len(s.config.Command) == 0
		s.register.update(func(w *apipb.Workload) { w.Ready = ready })
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Limits of what drain waits for: the control plane, which may be away, and the slowest
// proxy of the mesh, which may hang.
const (
	knownLimit   = time.Second
	settledLimit = 5 * time.Second
)

// drain tells the mesh that no new requests are wanted, waits until no peer sends any, and
// lets Envoy ask those on open connections to go elsewhere. On a busy machine peers may
// learn of the end later than the time that they have for it afterwards.
func (s *Sidecar) drain(ctx context.Context) error {
	s.register.update(func(w *apipb.Workload) { w.Ready = false })
	if err := s.register.awaitFor(ctx, knownLimit); err != nil {
		s.log.Warn("the control plane does not know of the end yet", "error", err)
		return s.admin.DrainListeners(ctx)
	}
	s.register.drain()
	if err := s.register.awaitFor(ctx, settledLimit); err != nil {
		s.log.Warn("some peers may not know of the end yet", "error", err)
	}
	return s.admin.DrainListeners(ctx)
}

// proxyUID is the user that Envoy runs as, -1 where it is ours.
func (s *Sidecar) proxyUID() int {
	if s.config.Capture == capture.Transparent {
		return capture.DefaultProxyUID
	}
	return -1
}

// appUID is the user that the application runs as, -1 where it is ours.
func (s *Sidecar) appUID() int {
	if s.config.Capture != capture.Transparent || s.config.User == "" {
		return -1
	}
	name, _, _ := strings.Cut(s.config.User, ":")
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	uid, err := strconv.Atoi(name)
	if err != nil {
		return -1 // the start of the application will say that there is no such user
	}
	return uid
}
