package inject

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// Pod gives the document of a pod with a sidecar, if it is to have one, and says why or why
// not. The given document stays as it is. A pod that has its sidecar already is changed
// only where something came after it, such as the container of another webhook.
func Pod(document map[string]any, ns Namespace, c Config) (map[string]any, Decision, error) {
	pod, err := typed(document)
	if err != nil {
		return document, Decision{}, err
	}
	d, err := Decide(pod, ns, c)
	if err != nil || !d.Inject {
		return document, d, err
	}
	s, err := read(pod, c)
	if err != nil {
		return document, d, err
	}
	out := clone(document)
	if err := edit(out, pod, c, s); err != nil {
		return document, d, err
	}
	return out, d, nil
}

// typed reads a document as a pod. Names of fields are told apart by case, as the API
// server does.
func typed(document map[string]any) (*corev1.Pod, error) {
	data, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("read the pod: %w", err)
	}
	pod := new(corev1.Pod)
	if err := utiljson.Unmarshal(data, pod); err != nil {
		return nil, fmt.Errorf("read the pod: %w", err)
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, fmt.Errorf("read the pod: spec.containers is empty")
	}
	return pod, nil
}

// edit makes the changes of a document.
func edit(document map[string]any, pod *corev1.Pod, c Config, s settings) error {
	spec := within(document, "spec")
	found, err := newProbes(pod)
	if err != nil {
		return err
	}
	for _, container := range mappings(spec, "initContainers") {
		if name := container["name"]; name != proxyName && name != initName {
			if err := found.container(container); err != nil {
				return err
			}
		}
	}
	for _, container := range mappings(spec, "containers") {
		if err := found.container(container); err != nil {
			return err
		}
		addDrain(container, s)
		if s.workloadAPI {
			addWorkloadAPI(container)
		}
	}
	text, err := found.encode()
	if err != nil {
		return err
	}
	own := []corev1.Container{proxyContainer(c, s, text)}
	if !c.CNI {
		own = []corev1.Container{initContainer(c, s), own[0]}
	}
	addPodResources(spec, pod, s)
	if err := addContainers(spec, own); err != nil {
		return err
	}
	within(within(document, "metadata"), "annotations")[Injected] = c.Revision
	return addVolumes(spec, volumes())
}

// addDrain lets the application live a moment longer than its endpoint: callers' proxies
// then know of the end before it stops to listen. An application with a hook of its own
// has thought of that.
func addDrain(container map[string]any, s settings) {
	lifecycle, _ := container["lifecycle"].(map[string]any)
	if s.drain == 0 || lifecycle["preStop"] != nil {
		return
	}
	within(container, "lifecycle")["preStop"] = map[string]any{"sleep": map[string]any{"seconds": s.drain}}
}

// addWorkloadAPI gives the application its SPIFFE Workload API, by the variable that every
// SPIFFE library reads. What the container has of that itself stays.
func addWorkloadAPI(container map[string]any) {
	for field, add := range map[string]map[string]any{
		"env":          {"name": "SPIFFE_ENDPOINT_SOCKET", "value": "unix://" + runPath + "/app/workload.sock"},
		"volumeMounts": {"name": runVolume, "mountPath": runPath + "/app", "subPath": "app", "readOnly": true}, // keys lie beside it
	} {
		key, list := keys[field], mappings(container, field)
		if !slices.ContainsFunc(list, func(m map[string]any) bool { return m[key] == add[key] }) {
			all, _ := container[field].([]any)
			container[field] = append(slices.Clone(all), add)
		}
	}
}

// addContainers puts our init containers first: what comes after them has the mesh.
func addContainers(spec map[string]any, own []corev1.Container) error {
	var out []any
	for i := range own {
		container, err := plain(&own[i])
		if err != nil {
			return err
		}
		for _, before := range mappings(spec, "initContainers") {
			if before["name"] == own[i].Name {
				merge(before, container)
				container = before
			}
		}
		out = append(out, container)
	}
	list, _ := spec["initContainers"].([]any)
	spec["initContainers"] = append(out, slices.DeleteFunc(slices.Clone(list), func(item any) bool {
		container, _ := item.(map[string]any)
		return container["name"] == initName || container["name"] == proxyName
	})...)
	return nil
}

func addVolumes(spec map[string]any, own []corev1.Volume) error {
	var add []any
	for i := range own {
		volume, err := plain(&own[i])
		if err != nil {
			return err
		}
		for _, before := range mappings(spec, "volumes") {
			for field := range before {
				if _, ours := volume[field]; before["name"] == own[i].Name && !ours {
					return fmt.Errorf("volume %s has a name of the mesh's own and is no %s; rename it", own[i].Name, kindOf(own[i]))
				}
			}
		}
		add = append(add, volume)
	}
	list, _ := spec["volumes"].([]any)
	spec["volumes"] = mergeList(keys["volumes"], list, add)
	return nil
}

func kindOf(v corev1.Volume) string {
	if v.EmptyDir != nil {
		return "emptyDir"
	}
	return "projected volume"
}
