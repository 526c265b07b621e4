package inject

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Exclusions are what a pod leaves out of the mesh, by its annotations.
type Exclusions struct {
	InboundPorts, OutboundPorts []uint16
	OutboundCIDRs               []netip.Prefix
}

// ReadExclusions reads them as the webhook does. The error is an AnnotationError.
func ReadExclusions(pod *corev1.Pod) (Exclusions, error) {
	var s settings
	for _, name := range []string{excludeInboundPorts, excludeOutboundPorts, excludeOutboundCIDRs} {
		value, ok := pod.Annotations[name]
		if !ok {
			continue
		}
		if want := annotations[name](&s, strings.TrimSpace(value)); want != "" {
			return Exclusions{}, &AnnotationError{name, value, want}
		}
	}
	return Exclusions{parsed(s.inboundPorts, port), parsed(s.outboundPorts, port), parsed(s.outboundCIDRs, netip.MustParsePrefix)}, nil
}

// parsed splits a value that was checked.
func parsed[T any](list string, parse func(string) T) (out []T) {
	for item := range strings.SplitSeq(list, ",") {
		if item != "" {
			out = append(out, parse(item))
		}
	}
	return out
}

func port(checked string) uint16 {
	n, _ := strconv.ParseUint(checked, 10, 16)
	return uint16(n)
}

// SystemNamespaces are those without which no pod starts: nothing there is ever injected.
func SystemNamespaces() []string { return slices.Clone(system) }
