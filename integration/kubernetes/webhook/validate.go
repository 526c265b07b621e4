package webhook

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"

	admissionv1 "k8s.io/api/admission/v1"

	discovery "github.com/heddle-mesh/heddle/discovery/kubernetes"
)

// validate refuses objects with the messages of heddle apply, and warns with them. An update that leaves the
// spec alone is let through: an object from before a rule can be labelled, and deleted
// where that needs its finalizers taken away.
func (s *Server) validate(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	if r.SubResource != "" || r.Operation != admissionv1.Create && r.Operation != admissionv1.Update {
		return allowed()
	}
	if r.Operation == admissionv1.Update && sameSpec(r.OldObject.Raw, r.Object.Raw) {
		return allowed()
	}
	object, err := discovery.Check(r.Object.Raw, s.config.Options)
	if err != nil {
		return denied(http.StatusUnprocessableEntity, "%v", err)
	}
	response := allowed()
	if object != nil && s.config.Doubts != nil {
		response.Warnings = s.config.Doubts(object)
	}
	return response
}

func sameSpec(before, after []byte) bool {
	var was, is struct {
		Spec any `json:"spec"`
	}
	return json.Unmarshal(before, &was) == nil && json.Unmarshal(after, &is) == nil && reflect.DeepEqual(was.Spec, is.Spec)
}
