package ingress

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// note takes the faults that there are now.
func (w *Writer) note(s *mesh.Snapshot, found map[mesh.Name][]mesh.Fault) {
	before := w.faults
	w.faults = map[fault]*noted{}
	for name, list := range found {
		i, ok := s.Ingresses.Lookup(name)
		if !ok {
			continue
		}
		for _, f := range list {
			key := fault{name, i.Created, f}
			if w.faults[key] = before[key]; before[key] == nil {
				w.faults[key] = &noted{since: time.Now()}
			}
		}
	}
}

// tell makes an Event of each fault that lasts, once.
func (w *Writer) tell(ctx context.Context) error {
	for f, n := range w.faults {
		if n.told || time.Since(n.since) < lasting {
			continue
		}
		if err := w.event(ctx, f); err != nil {
			return err
		}
		n.told = true
	}
	return nil
}

func (w *Writer) event(ctx context.Context, f fault) error {
	object, err := w.config.Client.Resource(ingresses).Namespace(f.ingress.Namespace).Get(ctx, f.ingress.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Ingress %s: %w", f.ingress, err)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	event := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"generateName": f.ingress.Name + ".", "namespace": f.ingress.Namespace},
		"involvedObject": map[string]any{
			"apiVersion": ingresses.GroupVersion().String(), "kind": string(mesh.KindIngress),
			"namespace": f.ingress.Namespace, "name": f.ingress.Name, "uid": string(object.GetUID()),
		},
		"type": "Warning", "reason": "NotServed", "message": f.String(),
		"source": map[string]any{"component": "heddle-controlplane"}, "reportingComponent": "heddle.dev/ingress",
		"firstTimestamp": now, "lastTimestamp": now, "count": int64(1),
	}}
	_, err = w.config.Client.Resource(events).Namespace(f.ingress.Namespace).Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, "NamespaceTerminating") {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tell of Ingress %s: %w", f.ingress, err)
	}
	return nil
}
