package inject

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The annotations of a pod. A misspelt one is an error: the pod would run without what it
// asks for.
const (
	annotationPrefix = "heddle.dev/"

	excludeInboundPorts  = "heddle.dev/exclude-inbound-ports"
	excludeOutboundPorts = "heddle.dev/exclude-outbound-ports"
	excludeOutboundCIDRs = "heddle.dev/exclude-outbound-cidrs"
	proxyLogLevel        = "heddle.dev/proxy-log-level"
	proxyConcurrency     = "heddle.dev/proxy-concurrency"
	proxyCPU             = "heddle.dev/proxy-cpu"
	proxyMemory          = "heddle.dev/proxy-memory"
	proxyCPULimit        = "heddle.dev/proxy-cpu-limit"
	proxyMemoryLimit     = "heddle.dev/proxy-memory-limit"
	drainSeconds         = "heddle.dev/drain-seconds"
	workloadAPI          = "heddle.dev/workload-api"
)

const (
	defaultDrain = 5    // seconds; callers know of an end within a fraction of one
	maxDrain     = 3600 // seconds
	maxThreads   = 1024
	leastMemory  = 1 << 20 // bytes; less is a wrong unit, such as 64m, which is 0.064 bytes
)

// settings are what a pod's own annotations say.
type settings struct {
	inboundPorts, outboundPorts, outboundCIDRs string // as heddle capture takes them
	logLevel, concurrency                      string
	resources                                  corev1.ResourceRequirements
	drain                                      int64 // seconds
	workloadAPI                                bool
}

// An AnnotationError is a value that cannot be used.
type AnnotationError struct{ Annotation, Value, Want string }

func (e *AnnotationError) Error() string {
	return fmt.Sprintf("annotation %s is %q: %s", e.Annotation, e.Value, e.Want)
}

// read takes the settings from a pod; the error has everything that is wrong.
func read(pod *corev1.Pod, c Config) (settings, error) {
	s := settings{drain: defaultDrain, resources: *c.Resources.DeepCopy()}
	var wrong []error
	for _, name := range slices.Sorted(maps.Keys(pod.Annotations)) {
		value := pod.Annotations[name]
		if !strings.HasPrefix(name, annotationPrefix) || name == Injected {
			continue
		}
		set, ok := annotations[name]
		if !ok {
			wrong = append(wrong, &AnnotationError{name, value, unknown(name)})
		} else if want := set(&s, strings.TrimSpace(value)); want != "" {
			wrong = append(wrong, &AnnotationError{name, value, want})
		}
	}
	if len(wrong) == 0 {
		wrong = append(wrong, s.fitResources(pod), s.fitDrain(pod))
	}
	return s, errors.Join(wrong...)
}

// fitResources keeps requests within limits, where only a limit was asked for.
func (s *settings) fitResources(pod *corev1.Pod) error {
	for _, of := range []struct {
		name           corev1.ResourceName
		request, limit string
	}{{corev1.ResourceCPU, proxyCPU, proxyCPULimit}, {corev1.ResourceMemory, proxyMemory, proxyMemoryLimit}} {
		limit, limited := s.resources.Limits[of.name]
		request := s.resources.Requests[of.name]
		if !limited || request.Cmp(limit) <= 0 {
			continue
		}
		if given, ok := pod.Annotations[of.request]; ok {
			return &AnnotationError{of.request, given, fmt.Sprintf("it is more than the limit of %s; raise %s or lower this", limit.String(), of.limit)}
		}
		s.resources.Requests[of.name] = limit
	}
	return nil
}

// fitDrain leaves the application at least half of the time that it has to end.
func (s *settings) fitDrain(pod *corev1.Pod) error {
	grace := gracePeriod(pod)
	given, ok := pod.Annotations[drainSeconds]
	switch {
	case !ok:
		s.drain = min(s.drain, grace/2)
	case s.drain >= max(grace, 1):
		return &AnnotationError{drainSeconds, given, fmt.Sprintf("the pod has %d seconds to end; raise its terminationGracePeriodSeconds above this, or lower this", grace)}
	}
	return nil
}

func gracePeriod(pod *corev1.Pod) int64 {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return corev1.DefaultTerminationGracePeriodSeconds
}

// annotations take a value into settings; they return what a bad one should be.
var annotations = map[string]func(*settings, string) (want string){
	excludeInboundPorts:  ports(func(s *settings) *string { return &s.inboundPorts }),
	excludeOutboundPorts: ports(func(s *settings) *string { return &s.outboundPorts }),
	excludeOutboundCIDRs: func(s *settings, v string) string {
		var out []string
		for one := range strings.SplitSeq(v, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(one))
			if err != nil || p.Addr().Is4In6() {
				return "want address ranges with commas between them, such as 10.0.0.0/8,192.0.2.7/32"
			}
			out = append(out, p.Masked().String())
		}
		s.outboundCIDRs = strings.Join(out, ",")
		return ""
	},
	proxyLogLevel: func(s *settings, v string) string {
		s.logLevel = v
		switch v {
		case "trace", "debug", "info", "warning", "error", "critical", "off":
			return ""
		}
		return "want one of trace, debug, info, warning, error, critical, off"
	},
	proxyConcurrency: func(s *settings, v string) string {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > maxThreads {
			return fmt.Sprintf("want a number of threads from 1 to %d", maxThreads)
		}
		s.concurrency = strconv.Itoa(n)
		return ""
	},
	proxyCPU:         quantity(corev1.ResourceCPU, false),
	proxyMemory:      quantity(corev1.ResourceMemory, false),
	proxyCPULimit:    quantity(corev1.ResourceCPU, true),
	proxyMemoryLimit: quantity(corev1.ResourceMemory, true),
	drainSeconds: func(s *settings, v string) string {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 || n > maxDrain {
			return fmt.Sprintf("want seconds from 0 to %d", maxDrain)
		}
		s.drain = n
		return ""
	},
	workloadAPI: func(s *settings, v string) string {
		s.workloadAPI = v == "true"
		if v != "true" && v != "false" {
			return `want "true" or "false"`
		}
		return ""
	},
}

// unknown says what is wrong with an annotation that is none of ours.
func unknown(name string) string {
	if name == InjectLabel || name == RevisionLabel {
		return "it is a label; move it from annotations to labels"
	}
	var names []string
	for known := range annotations {
		names = append(names, known)
	}
	slices.Sort(names)
	return "there is no such annotation; there are " + strings.Join(names, ", ")
}

func ports(field func(*settings) *string) func(*settings, string) string {
	return func(s *settings, v string) string {
		var out []string
		for one := range strings.SplitSeq(v, ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(one), 10, 16)
			if err != nil || n == 0 {
				return "want port numbers from 1 to 65535 with commas between them, such as 9090,9091"
			}
			out = append(out, strconv.FormatUint(n, 10))
		}
		*field(s) = strings.Join(out, ",")
		return ""
	}
}

func quantity(name corev1.ResourceName, limit bool) func(*settings, string) string {
	return func(s *settings, v string) string {
		q, err := resource.ParseQuantity(v)
		switch {
		case err != nil || q.Sign() <= 0:
			return "want a quantity above 0, such as " + map[corev1.ResourceName]string{corev1.ResourceCPU: "100m", corev1.ResourceMemory: "128Mi"}[name]
		case name == corev1.ResourceMemory && q.CmpInt64(leastMemory) < 0:
			return "it is less than a mebibyte; want one such as 128Mi"
		}
		list := &s.resources.Requests
		if limit {
			list = &s.resources.Limits
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = q
		return ""
	}
}
