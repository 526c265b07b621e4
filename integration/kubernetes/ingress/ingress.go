// Package ingress writes into the Ingresses of a cluster where they are reached, and tells
// in Events what of them is not served. The leader of the control plane's replicas runs it.
package ingress

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

const (
	// soon is how long after a change of the mesh Ingresses are looked at, and late how long
	// without one: the Service's address is not seen to change.
	soon, late = 500 * time.Millisecond, 5 * time.Second
	// lasting is how long a fault must be there to be told. Of objects that are applied
	// together one comes before the others.
	lasting = 3 * time.Second
)

// Config of a Writer.
type Config struct {
	Client   dynamic.Interface
	Snapshot func() *mesh.Snapshot
	// Gateway is the gateway that serves them, and the name of its Service.
	Gateway mesh.Name
	Log     *slog.Logger
}

// Writer writes statuses and Events.
type Writer struct {
	config  Config
	written map[mesh.Name]written
	faults  map[fault]*noted
}

// written is what an Ingress's status was last.
type written struct {
	created   int64 // of the Ingress: another may have its name now
	addresses []any
}

// fault is one that was found.
type fault struct {
	ingress mesh.Name
	created int64
	mesh.Fault
}

type noted struct {
	since time.Time
	told  bool
}

// New makes a writer.
func New(c Config) *Writer { return &Writer{config: c} }

var (
	ingresses = schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}
	services  = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	events    = schema.GroupVersionResource{Version: "v1", Resource: "events"}
)

// Run writes until the context is done.
func (w *Writer) Run(ctx context.Context) error {
	w.written, w.faults = map[mesh.Name]written{}, map[fault]*noted{} // another replica may have led meanwhile
	tick := time.NewTicker(soon)
	defer tick.Stop()
	var revision uint64
	var last time.Time
	for {
		if s := w.config.Snapshot(); s.Revision != revision || time.Since(last) >= late || w.pending() {
			revision, last = s.Revision, time.Now()
			if err := w.round(ctx, s); err != nil && ctx.Err() == nil {
				w.config.Log.Warn("the statuses of Ingresses are not up to date", "error", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// pending reports whether a fault waits to be told.
func (w *Writer) pending() bool {
	for _, n := range w.faults {
		if !n.told && time.Since(n.since) >= lasting {
			return true
		}
	}
	return false
}

func (w *Writer) round(ctx context.Context, s *mesh.Snapshot) error {
	addresses, err := w.addresses(ctx)
	if err != nil {
		return err
	}
	_, found := s.EdgeOf(w.config.Gateway)
	w.note(s, found)
	for name, i := range s.Ingresses.All() {
		next := written{i.Created, addresses}
		if reflect.DeepEqual(w.written[name], next) {
			continue
		}
		if err := w.writeStatus(ctx, name, addresses); err != nil {
			return err
		}
		w.written[name] = next
	}
	for name := range w.written {
		if _, ok := s.Ingresses.Lookup(name); !ok {
			delete(w.written, name)
		}
	}
	return w.tell(ctx)
}

// addresses are those of the gateway's Service, as an Ingress has them.
func (w *Writer) addresses(ctx context.Context) ([]any, error) {
	g := w.config.Gateway
	service, err := w.config.Client.Resource(services).Namespace(g.Namespace).Get(ctx, g.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read Service %s: %w", g, err)
	}
	list, _, err := unstructured.NestedSlice(service.Object, "status", "loadBalancer", "ingress")
	if err != nil {
		return nil, fmt.Errorf("read Service %s: %w", g, err)
	}
	out := []any{}
	for _, item := range list {
		fields, _ := item.(map[string]any)
		entry := map[string]any{}
		for _, field := range []string{"ip", "hostname"} {
			if v, ok := fields[field]; ok {
				entry[field] = v
			}
		}
		if len(entry) > 0 {
			out = append(out, entry)
		}
	}
	return out, nil
}

func (w *Writer) writeStatus(ctx context.Context, name mesh.Name, addresses []any) error {
	client := w.config.Client.Resource(ingresses).Namespace(name.Namespace)
	object, err := client.Get(ctx, name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Ingress %s: %w", name, err)
	}
	now, _, _ := unstructured.NestedSlice(object.Object, "status", "loadBalancer", "ingress")
	if len(now) == 0 && len(addresses) == 0 || reflect.DeepEqual(now, addresses) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": addresses}}})
	if err != nil {
		return err
	}
	_, err = client.Patch(ctx, name.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "heddle"}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write the status of Ingress %s: %w", name, err)
	}
	return nil
}
