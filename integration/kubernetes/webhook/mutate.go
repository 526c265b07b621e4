package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// inject answers for a pod that is about to be made.
func (s *Server) inject(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if r.Resource.Group != "" || r.Resource.Resource != "pods" || r.SubResource != "" || r.Operation != admissionv1.Create {
		return allowed()
	}
	before, err := inject.Decode(r.Object.Raw)
	if err != nil {
		return denied(http.StatusBadRequest, "read the pod: %v", err)
	}
	name := podName(before, r.Namespace)
	labels, err := s.namespaceLabels(ctx, r.Namespace)
	if err != nil {
		return denied(http.StatusInternalServerError, "heddle cannot tell whether %s is to have a sidecar: %v", name, err)
	}
	after, d, err := inject.Pod(before, inject.Namespace{Name: r.Namespace, Labels: labels}, s.config.Inject())
	if err != nil {
		return denied(http.StatusUnprocessableEntity, "heddle cannot put a sidecar into %s: %v", name, err)
	}
	s.config.Log.Debug("asked for a sidecar", "pod", name, "inject", d.Inject, "reason", d.Reason)
	patch, err := inject.Patch(before, after)
	if err != nil {
		return denied(http.StatusInternalServerError, "write the changes of %s: %v", name, err)
	}
	if len(patch) == 0 {
		return allowed()
	}
	data, err := json.Marshal(patch)
	if err != nil {
		return denied(http.StatusInternalServerError, "write the changes of %s: %v", name, err)
	}
	kind := admissionv1.PatchTypeJSONPatch
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: data, PatchType: &kind}
}

// namespaceLabels gives the labels of a namespace as they are now, not as a watch that may
// lag has them: who labels a namespace and restarts what is there gets sidecars. Calls
// that come together share one read; one of them that is given up does not end it.
func (s *Server) namespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	shared := s.flight.DoChan(name, func() (any, error) {
		return s.config.Client.NamespaceLabels(context.WithoutCancel(ctx), name)
	})
	select {
	case result := <-shared:
		labels, _ := result.Val.(map[string]string)
		return labels, result.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// podName names a pod as far as it has a name yet.
func podName(document map[string]any, namespace string) string {
	meta, _ := document["metadata"].(map[string]any)
	for _, field := range []string{"name", "generateName"} {
		if name, ok := meta[field].(string); ok && name != "" {
			return fmt.Sprintf("pod %s/%s", namespace, name)
		}
	}
	return "a pod in namespace " + namespace
}
