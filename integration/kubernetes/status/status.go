// Package status writes into the objects of a cluster how they fare: whether the mesh has
// accepted them, whether what they refer to exists, and on how many proxies of how many
// they are live.
//
// One replica of the control plane writes, the leader; it asks the others what their
// proxies say. What has not changed is not written.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

const (
	// soon is how long after a change statuses are looked at, and late how long without
	// one: the other replicas' proxies are not seen to change.
	soon, late = 500 * time.Millisecond, 10 * time.Second
	// restless is how long after a change they are looked at often: proxies are answering.
	restless = 10 * time.Second
)

// Rejection is why an object cannot be read.
type Rejection struct {
	Generation int64
	Err        error
}

// Config of a Writer.
type Config struct {
	Client   dynamic.Interface
	Snapshot func() *mesh.Snapshot
	// Statuses gives the statuses of objects in the mesh, as all replicas know them.
	Statuses func(ctx context.Context, refs []mesh.Ref) ([]*admin.Status, error)
	// Rejected gives the objects that cannot be read.
	Rejected func() map[mesh.Ref]Rejection
	Log      *slog.Logger
}

// Writer writes statuses.
type Writer struct {
	config  Config
	written map[mesh.Ref]any // what we wrote last, without times
}

// New makes a writer.
func New(c Config) *Writer { return &Writer{config: c} }

// resources are the kinds that get a status.
var resources = map[mesh.Kind]schema.GroupVersionResource{
	mesh.KindHTTPRoute:           {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
	mesh.KindGRPCRoute:           {Group: "gateway.networking.k8s.io", Version: "v1", Resource: "grpcroutes"},
	mesh.KindAuthorizationPolicy: {Group: "mesh.heddle.dev", Version: "v1alpha1", Resource: "authorizationpolicies"},
	mesh.KindMeshConfig:          {Group: "mesh.heddle.dev", Version: "v1alpha1", Resource: "meshconfigs"},
}

// Run writes until the context is done.
func (w *Writer) Run(ctx context.Context) error {
	w.written = map[mesh.Ref]any{} // another replica may have led meanwhile
	var revision uint64
	changed := time.Now()
	for {
		if r := w.config.Snapshot().Revision; r != revision {
			revision, changed = r, time.Now()
		}
		wrote, err := w.round(ctx)
		if err != nil && ctx.Err() == nil {
			w.config.Log.Warn("statuses are not up to date", "error", err)
		}
		if wrote {
			changed = time.Now()
		}
		pause := soon
		if time.Since(changed) > restless {
			pause = late
		}
		if !w.pause(ctx, pause, revision) {
			return nil
		}
	}
}

// pause waits, but not longer than soon after a change of the mesh; false is the end.
func (w *Writer) pause(ctx context.Context, d time.Duration, revision uint64) bool {
	deadline := time.Now().Add(d)
	for time.Now().Before(deadline) {
		select {
		case <-time.After(soon):
		case <-ctx.Done():
			return false
		}
		if w.config.Snapshot().Revision != revision {
			return true
		}
	}
	return true
}

// round writes what has changed.
func (w *Writer) round(ctx context.Context) (wrote bool, err error) {
	rejected := w.config.Rejected()
	var refs []mesh.Ref
	for _, ref := range objects(w.config.Snapshot()) {
		if _, bad := rejected[ref]; !bad {
			refs = append(refs, ref)
		}
	}
	statuses, err := w.config.Statuses(ctx, refs)
	if err != nil {
		return false, err
	}
	now := map[mesh.Ref]*admin.Status{}
	for i, ref := range refs {
		if statuses[i] != nil {
			now[ref] = statuses[i]
		}
	}
	for ref, why := range rejected {
		if _, ok := resources[ref.Kind]; ok {
			now[ref] = refused(why)
		}
	}
	for ref := range w.written {
		if now[ref] == nil {
			delete(w.written, ref)
		}
	}
	for ref, status := range now {
		next := document(ref.Kind, status)
		if reflect.DeepEqual(w.written[ref], next) {
			continue
		}
		if err := w.write(ctx, ref, status.ObservedGeneration, next); err != nil {
			return wrote, err
		}
		w.written[ref], wrote = next, true
	}
	return wrote, nil
}

func objects(s *mesh.Snapshot) []mesh.Ref {
	var refs []mesh.Ref
	for _, o := range s.HTTPRoutes.All() {
		refs = append(refs, o.Ref)
	}
	for _, o := range s.GRPCRoutes.All() {
		refs = append(refs, o.Ref)
	}
	for _, o := range s.Policies.All() {
		refs = append(refs, o.Ref)
	}
	if s.Config.Generation > 0 { // somebody wrote one
		refs = append(refs, s.Config.Ref)
	}
	return refs
}

// refused is the status of an object that cannot be read.
func refused(why Rejection) *admin.Status {
	return &admin.Status{ObservedGeneration: why.Generation, Conditions: []admin.Condition{{
		Type: admin.Accepted, Status: admin.False, ObservedGeneration: why.Generation, Reason: "Invalid", Message: why.Err.Error(),
	}}}
}

// document is a status as the object has it, without the times of conditions.
func document(kind mesh.Kind, s *admin.Status) map[string]any {
	if kind == mesh.KindHTTPRoute || kind == mesh.KindGRPCRoute {
		parents := []any{}
		for _, p := range s.Parents {
			ref := map[string]any{"group": p.ParentRef.Group, "kind": p.ParentRef.Kind, "namespace": p.ParentRef.Namespace, "name": p.ParentRef.Name}
			if p.ParentRef.Port != 0 {
				ref["port"] = int64(p.ParentRef.Port)
			}
			parents = append(parents, map[string]any{"parentRef": ref, "controllerName": p.ControllerName, "conditions": conditions(p.Conditions)})
		}
		return map[string]any{"parents": parents}
	}
	return map[string]any{
		"observedGeneration": s.ObservedGeneration, "conditions": conditions(s.Conditions),
		"proxies": map[string]any{"total": int64(s.Proxies.Total), "live": int64(s.Proxies.Live)},
	}
}

// maxMessage bounds a condition's message, as the API does.
const maxMessage = 32 << 10

func conditions(list []admin.Condition) []any {
	out := []any{}
	for _, c := range list {
		out = append(out, map[string]any{
			"type": c.Type, "status": c.Status, "observedGeneration": c.ObservedGeneration,
			"reason": c.Reason, "message": c.Message[:min(len(c.Message), maxMessage)],
		})
	}
	return out
}

// write puts a status into the object, unless it is there already, or is of another
// generation than the object's own.
func (w *Writer) write(ctx context.Context, ref mesh.Ref, generation int64, next map[string]any) error {
	var client dynamic.ResourceInterface = w.config.Client.Resource(resources[ref.Kind])
	if ref.Namespace != "" {
		client = w.config.Client.Resource(resources[ref.Kind]).Namespace(ref.Namespace)
	}
	object, err := client.Get(ctx, ref.Name.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && object.GetGeneration() != generation {
		return nil // a later round has the newer one
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", ref, err)
	}
	before, _, _ := unstructured.NestedMap(object.Object, "status")
	status := withOthers(before, next)
	stamp(before, status)
	if reflect.DeepEqual(normal(before), normal(status)) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": object.GetResourceVersion()}, "status": status})
	if err != nil {
		return err
	}
	_, err = client.Patch(ctx, ref.Name.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "heddle"}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the status of %s: %w", ref, err)
	}
	return nil
}

// normal is a value as JSON has it.
func normal(v any) (out any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, &out)
	}
	if err != nil {
		return nil
	}
	return out
}

// withOthers keeps what other controllers have written of a route's other parents.
func withOthers(before, next map[string]any) map[string]any {
	ours, ok := next["parents"].([]any)
	if !ok {
		return normal(next).(map[string]any)
	}
	var parents []any
	theirs, _ := before["parents"].([]any)
	for _, p := range theirs {
		if m, ok := p.(map[string]any); ok && m["controllerName"] != admin.ControllerName {
			parents = append(parents, p)
		}
	}
	return normal(map[string]any{"parents": slices.Concat([]any{}, parents, ours)}).(map[string]any)
}

// stamp gives conditions the time of their last transition: that of before where their
// status is the same.
func stamp(before, next map[string]any) {
	times := map[string]any{}
	walk(before, "", func(key string, c map[string]any) { times[key] = c["lastTransitionTime"] })
	now := time.Now().UTC().Format(time.RFC3339)
	walk(next, "", func(key string, c map[string]any) {
		if c["lastTransitionTime"] != nil {
			return // another controller's
		}
		if c["lastTransitionTime"] = times[key]; times[key] == nil {
			c["lastTransitionTime"] = now
		}
	})
}

// walk calls f for each condition of a status, under a key of its parent, type and status.
func walk(status map[string]any, prefix string, f func(key string, c map[string]any)) {
	list, _ := status["conditions"].([]any)
	for _, item := range list {
		if c, ok := item.(map[string]any); ok {
			f(fmt.Sprint(prefix, c["type"], c["status"]), c)
		}
	}
	parents, _ := status["parents"].([]any)
	for _, item := range parents {
		if p, ok := item.(map[string]any); ok {
			walk(p, fmt.Sprint(p["controllerName"], p["parentRef"]), f)
		}
	}
}
