package kubernetes

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestRecord: an installation keeps what is not the default, and what is kept makes the
// same values again.
func TestRecord(t *testing.T) {
	for _, tc := range []struct {
		sets []string
		want string
	}{
		{nil, "{}\n"},
		{[]string{"controlPlane.replicas=3", "revision=next"}, "controlPlane:\n  replicas: 3\nrevision: next\n"},
		{[]string{"controlPlane.nodeSelector.disk=ssd", "serviceCIDRs=[10.0.0.0/8]"}, "controlPlane:\n  nodeSelector:\n    disk: ssd\nserviceCIDRs:\n- 10.0.0.0/8\n"},
		{[]string{"controlPlane.replicas=2"}, "{}\n"},
	} {
		v, again := defaults(t), defaults(t)
		for _, set := range tc.sets {
			if err := v.Set(set); err != nil {
				t.Fatal(err)
			}
		}
		o, err := Record("heddle-system", v)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := unstructured.NestedString(o.Object, "data", recordKey)
		if text != tc.want {
			t.Errorf("%v is kept as\n%s\nwant\n%s", tc.sets, text, tc.want)
		}
		if err := again.Merge("record", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if shown(again) != shown(v) {
			t.Errorf("%v became\n%s\nwant\n%s", tc.sets, shown(again), shown(v))
		}
	}
}

func TestMissing(t *testing.T) {
	a := map[string]any{"x": 1, "in": map[string]any{"y": 1, "z": 2}, "same": true, "gone": map[string]any{"a": 1}}
	b := map[string]any{"in": map[string]any{"z": 3}, "same": true, "new": 1}
	if got := strings.Join(missing("", a, b), " "); got != "gone.a in.y x" {
		t.Errorf("got %s", got)
	}
}

func defaults(t *testing.T) Values {
	t.Helper()
	v, err := DefaultValues()
	if err != nil {
		t.Fatal(err)
	}
	return v
}
