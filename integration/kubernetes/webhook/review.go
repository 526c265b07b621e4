package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxBody bounds a review, in bytes: an object has 3 MiB at most (the API server's limit of
// a request), and an update comes with the object before it.
const maxBody = 8 << 20

// handler routes the paths that the webhook configurations name.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /inject", review(s.inject))
	mux.HandleFunc("POST /validate", review(s.validate))
	return mux
}

type answer func(context.Context, *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

// review reads an AdmissionReview, has it answered, and writes the answer.
func review(do answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if large := new(http.MaxBytesError); errors.As(err, &large) {
			http.Error(w, fmt.Sprintf("the AdmissionReview has more than %d bytes", large.Limit), http.StatusRequestEntityTooLarge)
			return
		} else if err != nil {
			http.Error(w, fmt.Sprintf("read the AdmissionReview: %v", err), http.StatusBadRequest)
			return
		}
		var in admissionv1.AdmissionReview
		if wrong := read(data, &in); wrong != "" {
			http.Error(w, wrong, http.StatusBadRequest)
			return
		}
		response := do(r.Context(), in.Request)
		response.UID = in.Request.UID
		out, err := json.Marshal(admissionv1.AdmissionReview{TypeMeta: in.TypeMeta, Response: response})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(out) //nolint:errcheck // the API server has gone
	}
}

// read reads a review, and says what is wrong with it in a sentence.
func read(data []byte, into *admissionv1.AdmissionReview) string {
	const want = "want an AdmissionReview of admission.k8s.io/v1"
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Sprintf("the body is not JSON of a review (%v); %s", err, want)
	}
	switch {
	case into.Kind != "AdmissionReview" || into.APIVersion != admissionv1.SchemeGroupVersion.String():
		return fmt.Sprintf("the body is a %q of %q; %s", into.Kind, into.APIVersion, want)
	case into.Request == nil:
		return "the AdmissionReview has no request; " + want + " with one"
	case into.Request.UID == "":
		return "the request of the AdmissionReview has no uid; " + want + " with one"
	}
	return ""
}

func allowed() *admissionv1.AdmissionResponse { return &admissionv1.AdmissionResponse{Allowed: true} }

func denied(code int32, format string, args ...any) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Status: metav1.StatusFailure, Code: code, Message: fmt.Sprintf(format, args...)}}
}
