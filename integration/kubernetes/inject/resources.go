package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// addPodResources makes room for the sidecar in what a pod asks for as a whole (KEP-2837):
// the API server refuses a pod whose containers ask for more together, and below a limit the
// application would have what the sidecar leaves. Room is made once, with the sidecar.
func addPodResources(spec map[string]any, pod *corev1.Pod, s settings) {
	whole := pod.Spec.Resources
	if whole == nil || slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == proxyName }) {
		return
	}
	for field, list := range map[string]corev1.ResourceList{"requests": whole.Requests, "limits": whole.Limits} {
		for name, asked := range list {
			share, ok := s.resources.Requests[name]
			if limit, limited := s.resources.Limits[name]; field == "limits" && limited {
				share, ok = limit, true
			}
			if ok {
				asked.Add(share)
				within(within(spec, "resources"), field)[string(name)] = asked.String()
			}
		}
	}
}
