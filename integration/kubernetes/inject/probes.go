package inject

import (
	"encoding/json"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// probesVariable tells the sidecar what the probes were that it answers for.
const probesVariable = "HEDDLE_PROBES"

// handlers are the ways to ask a container that go through the network. A command (exec)
// needs nothing, and neither does sleep.
var handlers = []string{"httpGet", "tcpSocket", "grpc"}

// defaults are the API server's, so that the sidecar is told the same whether the webhook
// or a file's injection comes first.
var defaults = map[string]map[string]any{
	"httpGet": {"path": "/", "scheme": "HTTP"},
	"grpc":    {"service": ""},
}

// probes collects the probes of a pod that are changed to ask the sidecar: the kubelet
// calls in the clear, from the node, and is no caller that a mesh of strict mutual TLS
// would let in.
type probes struct {
	grace   int64                     // seconds that the pod has to end
	earlier map[string]map[string]any // of a pod that was injected before
	found   map[string]map[string]any // handlers by the path at which the sidecar is asked
}

// newProbes begins with what an injected pod's sidecar was told.
func newProbes(pod *corev1.Pod) (*probes, error) {
	p := &probes{grace: gracePeriod(pod), found: map[string]map[string]any{}}
	for _, c := range pod.Spec.InitContainers {
		for _, e := range c.Env {
			if c.Name != proxyName || e.Name != probesVariable {
				continue
			}
			if err := json.Unmarshal([]byte(e.Value), &p.earlier); err != nil {
				return nil, fmt.Errorf("container %s: %s is not what an injection wrote (%w); remove the container, or make the pod from its original", proxyName, probesVariable, err)
			}
		}
	}
	return p, nil
}

// container changes the probes and hooks of a container.
func (p *probes) container(container map[string]any) error {
	name, _ := container["name"].(string)
	for _, kind := range []string{"liveness", "readiness", "startup"} {
		probe, ok := container[kind+"Probe"].(map[string]any)
		if !ok {
			continue
		}
		timeout, ok := probe["timeoutSeconds"]
		if !ok {
			timeout = int64(1) // Kubernetes' default
		}
		if err := p.handler(container, probe, "/probe/"+name+"/"+kind, timeout); err != nil {
			return fmt.Errorf("container %s: %s probe: %w", name, kind, err)
		}
	}
	hooks, _ := container["lifecycle"].(map[string]any)
	for _, kind := range []string{"postStart", "preStop"} {
		hook, _ := hooks[kind].(map[string]any)
		if hook["httpGet"] == nil {
			continue // tcpSocket is there for old manifests only and does nothing
		}
		if err := p.handler(container, hook, "/probe/"+name+"/"+kind, p.grace); err != nil {
			return fmt.Errorf("container %s: %s hook: %w", name, kind, err)
		}
	}
	return nil
}

// handler changes the handler of a probe or hook, which asks the sidecar at path then.
func (p *probes) handler(container, probe map[string]any, path string, timeout any) error {
	for _, kind := range handlers {
		action, ok := probe[kind].(map[string]any)
		if !ok {
			continue
		}
		if number(action["port"]) == float64(healthPort) && action["path"] == path {
			before, ok := p.earlier[path]
			if !ok {
				return fmt.Errorf("it asks the sidecar, which nothing tells what to ask the application; make the pod from its original")
			}
			p.found[path] = before
			return nil
		}
		original := clone(action)
		for field, value := range defaults[kind] {
			if _, ok := original[field]; !ok {
				original[field] = value
			}
		}
		if err := resolve(container, original); err != nil {
			return err
		}
		p.found[path] = map[string]any{kind: original, "timeoutSeconds": timeout}
		delete(probe, kind)
		probe["httpGet"] = map[string]any{"path": path, "port": int64(healthPort), "scheme": "HTTP"}
		return nil
	}
	return nil
}

// resolve puts the number of a port in the place of its name.
func resolve(container, action map[string]any) error {
	name, ok := action["port"].(string)
	if !ok {
		return nil
	}
	if n, err := strconv.ParseUint(name, 10, 16); err == nil {
		action["port"] = int64(n)
		return nil
	}
	ports, _ := container["ports"].([]any)
	for _, item := range ports {
		if port, _ := item.(map[string]any); port["name"] == name {
			action["port"] = port["containerPort"]
			return nil
		}
	}
	return fmt.Errorf("the container has no port named %q; give one that name under ports, or write its number here", name)
}

// encode writes the probes for the sidecar's environment.
func (p *probes) encode() (string, error) {
	if len(p.found) == 0 {
		return "", nil
	}
	data, err := json.Marshal(p.found)
	return string(data), err
}
