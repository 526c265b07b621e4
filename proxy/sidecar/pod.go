package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/proxy/bootstrap"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/proxy/probe"
	"github.com/heddle-mesh/heddle/proxy/relay"
)

// Pod is what a sidecar in a Kubernetes pod has in place of an application to start, a
// network to make and a registration: kubelet and injector did the first two, and the Pod
// object is the third.
type Pod struct {
	Addresses []netip.Addr // at least one; the first is the one that the kubelet asks
	TokenFile string       // with the service account token for the control plane
	Roots     []attest.Fingerprint
	Probes    map[string]probe.Probe // by path
	// Verify is for a pod whose rules the CNI plugin loads: nothing in the pod itself would
	// fail if they were not there.
	Verify bool
	// Gateway is for a pod that is an entrance of the mesh: nothing of it is captured, no
	// application asks for names, and its clients are strangers that may stay connected.
	Gateway bool
	// Hold is how long a hook of ours holds the application back until we carry traffic. Then
	// it fails and the kubelet stops us, and we say what is missing: the kubelet shows no log
	// of a container while its hook runs. 0 = there is no hook.
	Hold time.Duration
}

// Hold is how long a hook holds back an application, at the most.
const Hold = time.Minute

// PodPort is where the kubelet asks: whether we are ready, and in the application's place.
const PodPort = 15021

func (c Config) validatePod() error {
	var errs []error
	if c.Address == "" || c.Socket != "" {
		errs = append(errs, errors.New("sidecar: in a pod the control plane is named by --control-plane HOST:PORT"))
	}
	if c.Capture != capture.Pod {
		errs = append(errs, fmt.Errorf("sidecar: capture %s in a pod, whose rules are loaded by 'heddle capture apply'", c.Capture))
	}
	if len(c.Pod.Addresses) == 0 {
		errs = append(errs, errors.New("sidecar: the pod has no address"))
	}
	if len(c.Ports)+len(c.Upstreams)+len(c.Publish)+len(c.Command) > 0 {
		errs = append(errs, errors.New("sidecar: in a pod the application is another container: no command, --port, --upstream or --publish"))
	}
	return errors.Join(errs...)
}

// makePodDirs makes the run directory, a volume that is not ours to change, in which other
// containers may find the sockets of the application.
func (c Config) makePodDirs() error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{c.RunDir, 0o755}, {c.path("envoy"), 0o700}, {c.path("app"), 0o755}} {
		if err := os.MkdirAll(d.path, d.mode); err != nil {
			return fmt.Errorf("make the run directory (a volume at %s that uid %d may write to?): %w", c.RunDir, os.Getuid(), err)
		}
	}
	return nil
}

// verifyCapture refuses to be the sidecar of a pod without rules: the application would
// talk past the mesh.
func (p *Pod) verifyCapture(ctx context.Context) error {
	if p == nil || !p.Verify {
		return nil
	}
	err := capture.Verify(ctx, p.Addresses)
	if errors.Is(err, capture.ErrNotCaptured) {
		return fmt.Errorf("%w: the pod was started while the CNI plugin heddle-cni was not in place on its node; delete the pod once it is (the plugin's DaemonSet does so where a controller makes the pod anew)", err)
	}
	return err
}

// podReady waits until there is an identity and, where there is no configuration from
// before, until the control plane has seen the Pod object: Envoy would wait longer than we
// do until it asks again.
func (s *Sidecar) podReady(ctx context.Context) error {
	if err := s.identity.Ready(ctx); err != nil {
		return fmt.Errorf("get an identity: %w", err)
	}
	if len(s.relay.Held()) > 0 {
		s.restarted.Store(true)
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.named:
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// servePod serves the kubelet.
func (s *Sidecar) servePod(ctx context.Context, group *errgroup.Group) error {
	l, err := s.ns.Listen(ctx, "tcp", ":"+strconv.Itoa(PodPort))
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		if err := s.awaitServing(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET "+probe.Prefix, probe.NewHandler(s.config.Pod.Probes, s.config.Pod.Addresses, s.log))
	s.serveHTTP(ctx, group, mux, l)
	if s.config.Pod.Hold > 0 {
		group.Go(func() error { s.watchHold(ctx); return nil })
	}
	return nil
}

// watchHold notes what is missing where we do not serve in time. Ending is left to the
// kubelet. It stops a container whose hook has failed, and waits for its end before it looks
// at the pod again; a container that ends by itself it may still take for one that runs, with
// its hook behind it, and start the application.
func (s *Sidecar) watchHold(ctx context.Context) {
	select {
	case <-time.After(s.config.Pod.Hold):
	case <-ctx.Done():
		return
	}
	if s.served.Load() {
		return
	}
	if err := s.serving(ctx); err != nil && ctx.Err() == nil {
		err = fmt.Errorf("the application was not started, as the sidecar was not ready in %s: %w", s.config.Pod.Hold, err)
		s.overdue.Store(&err)
	}
}

// unserved is an error where our time to serve was over and we never have.
func (s *Sidecar) unserved() error {
	if err := s.overdue.Load(); err != nil && !s.served.Load() {
		return *err
	}
	return nil
}

// awaitServing answers as serving does; with ?wait=DURATION, up to a minute, as soon as we
// serve. The kubelet asks once a second at most, and a pod that starts is to lose none.
func (s *Sidecar) awaitServing(r *http.Request) error {
	wait, err := time.ParseDuration(cmp.Or(r.URL.Query().Get("wait"), "0s"))
	if err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		wait = 0
	}
	ctx, cancel := context.WithTimeout(r.Context(), min(wait, time.Minute))
	defer cancel()
	for {
		if err = s.serving(r.Context()); err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// serving says why the application's traffic is not carried yet, or no more: Envoy serves,
// with listeners from the control plane, of today or of before. Who was told once that it is
// finds the same after a kill, without the control plane.
func (s *Sidecar) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if s.ending.Load() {
		return errors.New("the sidecar is ending")
	}
	if _, err := s.identity.GetX509SVID(); err != nil {
		return err
	}
	if err := s.admin.Ready(ctx); err != nil {
		return err
	}
	if !slices.ContainsFunc(s.relay.Held(), func(h relay.Held) bool { return h.Type == xds.ListenerType }) {
		return errors.New("envoy has no listeners yet")
	}
	select {
	case <-s.named:
	default:
		if !s.restarted.Load() { // with a configuration from before, the cluster's DNS has to do until the control plane is back
			return errors.New("the names of services have not come yet")
		}
	}
	if !s.whole() {
		return errors.New("envoy's configuration is still coming")
	}
	s.keep.Do(s.relay.Save)
	s.served.Store(true)
	return nil
}

// Configuration is whole, the first time, when no more of it has come for wholeAfter, or
// after wholeBy in any case: a mesh that changes all the time keeps nobody waiting.
const (
	wholeAfter = 20 * time.Millisecond
	wholeBy    = time.Second
)

// whole tells whether Envoy has all that it is to begin with: what is saved at that moment is
// what a sidecar that is killed comes back with.
func (s *Sidecar) whole() bool {
	if s.served.Load() || s.relay.Quiet(wholeAfter) {
		return true
	}
	now := time.Now()
	s.coming.CompareAndSwap(nil, &now)
	return time.Since(*s.coming.Load()) > wholeBy
}

// drainPod lets end what is open. A native sidecar is stopped when the application has
// ended, and then nothing is; by itself, as when its container is started anew, some is.
func (s *Sidecar) drainPod(ctx context.Context) error {
	s.ending.Store(true)
	if err := s.admin.DrainListeners(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Drain)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		open, err := s.openRequests(ctx)
		if err != nil || open == 0 {
			return nil // an Envoy that cannot be asked, or not in time, is not waited for
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.log.Info("requests are cut off", "open", open)
			return nil
		}
	}
}

// openRequests counts the requests and the connections of TCP that Envoy carries, to the
// application and from it. Its own to the agent never end.
func (s *Sidecar) openRequests(ctx context.Context) (open uint64, err error) {
	clusters, err := s.admin.Clusters(ctx)
	if err != nil {
		return 0, err
	}
	for _, c := range clusters.GetClusterStatuses() {
		if slices.Contains([]string{bootstrap.AgentCluster, bootstrap.SDSCluster, bootstrap.OTLPCluster}, c.GetName()) {
			continue
		}
		for _, host := range c.GetHostStatuses() {
			for _, stat := range host.GetStats() {
				if stat.GetName() == "rq_active" {
					open += stat.GetValue()
				}
			}
		}
	}
	return open, nil
}

// Limits of a container's memory, in version 2 and 1 of cgroups.
var memoryLimits = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

// heapLimit is what Envoy may use of a container's memory: what the agent leaves.
func heapLimit(normal uint64) uint64 {
	const agent, least = 48 << 20, 32 << 20
	for _, file := range memoryLimits {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil { // "max"
			return normal
		}
		return min(normal, max(limit, agent+least)-agent)
	}
	return normal
}
