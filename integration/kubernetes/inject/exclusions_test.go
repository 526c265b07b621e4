package inject

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExclusions(t *testing.T) {
	pod := func(annotations map[string]string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: annotations}}
	}
	got, err := ReadExclusions(pod(map[string]string{
		excludeInboundPorts: "9090, 9091", excludeOutboundCIDRs: "10.1.2.3/8,fd00::/64", "heddle.dev/unknown": "is not its business",
	}))
	want := Exclusions{
		InboundPorts: []uint16{9090, 9091}, OutboundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for name, value := range map[string]string{excludeInboundPorts: "", excludeOutboundPorts: "0", excludeOutboundCIDRs: "10.0.0.1"} {
		var wrong *AnnotationError
		if _, err := ReadExclusions(pod(map[string]string{name: value})); !errors.As(err, &wrong) || wrong.Annotation != name {
			t.Errorf("%s=%q: %v", name, value, err)
		}
	}
}
