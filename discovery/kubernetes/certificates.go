package kubernetes

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// certificates reads the Secrets that Ingresses name, each by its name and again and again.
// To watch them would need the right to list all Secrets of a namespace: RBAC knows no
// "those that an Ingress names", and who may get may at least not look around.
type certificates struct {
	client   rest.Interface
	interval time.Duration // how often a Secret is read
	changed  func()        // called after a change; does not wait
	log      *slog.Logger
	asked    chan struct{} // holds an element when names are wanted that have not been read

	mu      sync.Mutex // guards what follows
	wanted  map[mesh.Name]bool
	values  map[mesh.Name]*mesh.Certificate
	touched map[mesh.Name]bool
}

func newCertificates(client rest.Interface, interval time.Duration, changed func(), log *slog.Logger) *certificates {
	return &certificates{
		client: client, interval: interval, changed: changed, log: log, asked: make(chan struct{}, 1),
		wanted: map[mesh.Name]bool{}, values: map[mesh.Name]*mesh.Certificate{}, touched: map[mesh.Name]bool{},
	}
}

// want says which Secrets are of interest; the others are forgotten.
func (c *certificates) want(names map[mesh.Name]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = names
	for n := range c.values {
		if !names[n] {
			delete(c.values, n)
			c.touched[n] = true
		}
	}
	for n := range names {
		if c.values[n] == nil {
			select {
			case c.asked <- struct{}{}:
			default:
			}
			return
		}
	}
}

// take gives what has changed since it was called last.
func (c *certificates) take() []update[*mesh.Certificate] {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []update[*mesh.Certificate]
	for n := range c.touched {
		v := c.values[n]
		out = append(out, update[*mesh.Certificate]{n, v, v == nil})
	}
	clear(c.touched)
	return out
}

// run reads until the context is done.
func (c *certificates) run(ctx context.Context) {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	for {
		select {
		case <-c.asked:
			c.read(ctx, true)
		case <-tick.C:
			c.read(ctx, false)
		case <-ctx.Done():
			return
		}
	}
}

// readAll reads until every wanted Secret is known, or known not to be there: a gateway
// that is told of hosts without their certificates would close them. False is the end.
func (c *certificates) readAll(ctx context.Context) bool {
	for told := false; ; told = true {
		if c.read(ctx, true) {
			return true
		}
		if !told {
			c.log.Info("waiting for the certificates of Ingresses")
		}
		select {
		case <-time.After(firstWait):
		case <-ctx.Done():
			return false
		}
	}
}

// read reads the wanted Secrets, or only those that have never been; it reports whether
// the API server answered for all.
func (c *certificates) read(ctx context.Context, missing bool) bool {
	c.mu.Lock()
	names, before := maps.Clone(c.wanted), maps.Clone(c.values)
	c.mu.Unlock()
	all, some := true, false
	for n := range names {
		last := before[n]
		if missing && last != nil {
			continue
		}
		next, err := c.get(ctx, n, last)
		if err != nil {
			all = false
			if ctx.Err() == nil {
				c.log.Warn("a certificate cannot be read; it stays as it is", "secret", n.String(), "error", err)
			}
		} else if last == nil || !reflect.DeepEqual(next, last) {
			some = c.set(n, next) || some
		}
	}
	if some {
		c.changed()
	}
	return all
}

// set keeps a value if it still is wanted.
func (c *certificates) set(n mesh.Name, v *mesh.Certificate) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.wanted[n] {
		return false
	}
	c.values[n], c.touched[n] = v, true
	return true
}

// get reads a Secret. An API server that says no has answered.
func (c *certificates) get(ctx context.Context, n mesh.Name, last *mesh.Certificate) (*mesh.Certificate, error) {
	s := new(corev1.Secret)
	err := c.client.Get().AbsPath("/api/v1/namespaces", n.Namespace, "secrets", n.Name).
		SetHeader("Accept", protobuf).Timeout(longestWait).Do(ctx).Into(s)
	none := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name}}
	switch {
	case apierrors.IsNotFound(err):
		return faulty(none, nil, "does not exist; create it with kubectl create secret tls"), nil
	case apierrors.IsForbidden(err):
		return faulty(none, last, "may not be read by the control plane; add the namespace to the chart's ingress.secretNamespaces"), nil
	case err != nil:
		return nil, err
	}
	return Certificate(s, last, time.Now()), nil
}

func faulty(s *corev1.Secret, last *mesh.Certificate, fault string) *mesh.Certificate {
	out := &mesh.Certificate{Meta: metaOf(mesh.KindCertificate, s), Fault: fault}
	if last != nil {
		out.Chain, out.Key = last.Chain, last.Key
	}
	return out
}

// secretsOf are the Secrets that Ingresses name.
func secretsOf(ingresses map[mesh.Name]*mesh.Ingress) map[mesh.Name]bool {
	out := map[mesh.Name]bool{}
	for _, i := range ingresses {
		for _, n := range i.Secrets() {
			if n.Name != "" {
				out[n] = true
			}
		}
	}
	return out
}
