// Crds writes the CustomResourceDefinitions of Heddle's kinds from the schemas that
// discovery/manifest checks documents by. `make generate` calls it.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

const group, version = "mesh.heddle.dev", "v1alpha1"

// kind is one CustomResourceDefinition.
type kind struct {
	kind          mesh.Kind
	plural, scope string
	short         []any
	about         string
	columns       []any
	fields        map[string]string // descriptions by path
	rules         []any             // of the object as a whole
}

func column(name, kind, path, about string) any {
	return map[string]any{"name": name, "type": kind, "jsonPath": path, "description": about}
}

// conditionColumns show how an object fares.
var conditionColumns = []any{
	column("Accepted", "string", `.status.conditions[?(@.type=="Accepted")].status`, "Whether the object has a place in the mesh."),
	column("Programmed", "string", `.status.conditions[?(@.type=="Programmed")].status`, "Whether every proxy that it concerns holds it."),
	column("Live", "integer", ".status.proxies.live", "Proxies that hold it."),
	column("Proxies", "integer", ".status.proxies.total", "Proxies that it concerns."),
	column("Age", "date", ".metadata.creationTimestamp", "Age of the object."),
}

var kinds = []kind{
	{
		kind: mesh.KindAuthorizationPolicy, plural: "authorizationpolicies", scope: "Namespaced", short: []any{"authz"},
		about:   "AuthorizationPolicy says which callers may use services. Without one, every caller of the mesh may.",
		columns: append([]any{column("Action", "string", ".spec.action", "Allow or Deny.")}, conditionColumns...),
		fields: map[string]string{
			"":                              "Who may call, or may not.",
			"targetRefs":                    "Services of this namespace that the policy is for; without any, it is for all workloads of the namespace.",
			"targetRefs[].group":            "The API group of a Service, which is empty.",
			"targetRefs[].kind":             "Service.",
			"targetRefs[].name":             "Name of the Service.",
			"action":                        "Allow lets in whom a rule describes and nobody else; Deny refuses whom a rule describes, before any Allow. Allow is the default.",
			"rules":                         "Descriptions of callers; one that applies is enough.",
			"rules[].from":                  "Callers; without any, everybody.",
			"rules[].from[].serviceAccount": "A service account: of the policy's namespace, or of the one given.",
			"rules[].from[].namespace":      "A namespace: all of it, or that of the service account.",
			"rules[].from[].identity":       "A SPIFFE ID, such as spiffe://mesh.local/ns/shop/sa/api.",
			"rules[].ports":                 "Ports of the Services as callers name them; without any, all.",
		},
	},
	{
		kind: mesh.KindMeshConfig, plural: "meshconfigs", scope: "Cluster",
		about:   "MeshConfig holds the settings of the whole mesh. There is one, named mesh.",
		columns: conditionColumns,
		rules:   []any{map[string]any{"rule": "self.metadata.name == 'mesh'", "message": "the mesh has one MeshConfig and its name is mesh"}},
		fields: map[string]string{
			"":                                    "Settings; what is left out has its default.",
			"trustDomain":                         "Only the control plane's own; it is set where the control plane is installed.",
			"clusterDomain":                       "Only the control plane's own; it is set where the control plane is installed.",
			"tracing":                             "Traces of requests.",
			"tracing.samplingPercent":             "Share of requests that start a trace, 0 to 100; 1 is the default.",
			"accessLog":                           "Whether proxies log every request as JSON; true is the default.",
			"locality":                            "Where requests go first.",
			"locality.preferZone":                 "Keep requests in the caller's zone while it has healthy endpoints; true is the default.",
			"outlierDetection":                    "When an endpoint that answers badly is left alone for a while.",
			"outlierDetection.consecutiveErrors":  "Gateway errors in a row that eject an endpoint; 0 turns ejection off, 5 is the default.",
			"outlierDetection.baseEjectionTime":   "How long the first ejection lasts, such as 30s; it grows with each.",
			"outlierDetection.maxEjectionPercent": "Share of a service's endpoints that may be out at once; 50 is the default.",
			"connectTimeout":                      "Bound of a TCP connect to an endpoint, such as 5s.",
		},
	},
}

func main() {
	if err := write(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crds:", err)
		os.Exit(1)
	}
}

func write(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: crds DIR")
	}
	for _, k := range kinds {
		object, err := k.definition()
		if err != nil {
			return fmt.Errorf("%s: %w", k.kind, err)
		}
		data, err := yaml.Marshal(object)
		if err != nil {
			return err
		}
		head := "# Code generated by tools/crds from discovery/manifest. DO NOT EDIT.\n"
		if err := os.WriteFile(filepath.Join(args[0], k.plural+".yaml"), append([]byte(head), data...), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (k kind) definition() (map[string]any, error) {
	var undescribed []string
	used := map[string]bool{}
	spec, err := manifest.Schema(k.kind, func(path string) string {
		used[path] = true
		if k.fields[path] == "" && (path == "" || path[len(path)-1] != ']') {
			undescribed = append(undescribed, path)
		}
		return k.fields[path]
	})
	if err != nil {
		return nil, err
	}
	if len(undescribed) > 0 {
		return nil, fmt.Errorf("fields without a description: %q", undescribed)
	}
	for path := range k.fields {
		if !used[path] {
			return nil, fmt.Errorf("there is no field %q", path)
		}
	}
	schema := map[string]any{
		"type": "object", "description": k.about, "required": []any{"spec"},
		"properties": map[string]any{
			"apiVersion": map[string]any{"type": "string"}, "kind": map[string]any{"type": "string"}, "metadata": map[string]any{"type": "object"},
			"spec": spec, "status": status(),
		},
	}
	if k.rules != nil {
		schema["x-kubernetes-validations"] = k.rules
	}
	names := map[string]any{"kind": string(k.kind), "listKind": string(k.kind) + "List", "plural": k.plural, "singular": singular(k.kind), "categories": []any{"heddle"}}
	if k.short != nil {
		names["shortNames"] = k.short
	}
	return map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": k.plural + "." + group, "labels": map[string]any{"app.kubernetes.io/part-of": "heddle"}},
		"spec": map[string]any{
			"group": group, "scope": k.scope, "names": names,
			"versions": []any{map[string]any{
				"name": version, "served": true, "storage": true,
				"schema":                   map[string]any{"openAPIV3Schema": schema},
				"subresources":             map[string]any{"status": map[string]any{}},
				"additionalPrinterColumns": k.columns,
			}},
		},
	}, nil
}

func singular(k mesh.Kind) string {
	out := []byte(k)
	for i, c := range out {
		if c >= 'A' && c <= 'Z' {
			out[i] = c + 'a' - 'A'
		}
	}
	return string(out)
}

// status is what integration/kubernetes/status writes.
func status() map[string]any {
	text := func(max int) map[string]any { return map[string]any{"type": "string", "maxLength": max} }
	number := map[string]any{"type": "integer", "format": "int64"}
	return map[string]any{
		"type": "object", "description": "How the object fares; written by the control plane.",
		"properties": map[string]any{
			"observedGeneration": number,
			"proxies": map[string]any{
				"type": "object", "description": "How many proxies hold the object, of those that it concerns.",
				"properties": map[string]any{"total": number, "live": number},
			},
			"conditions": map[string]any{
				"type": "array", "maxItems": 16, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []any{"type"},
				"items": map[string]any{
					"type": "object", "required": []any{"type", "status", "reason", "message", "lastTransitionTime"},
					"properties": map[string]any{
						"type": text(316), "status": map[string]any{"type": "string", "enum": []any{"True", "False", "Unknown"}},
						"reason": text(1024), "message": text(32768), "observedGeneration": number,
						"lastTransitionTime": map[string]any{"type": "string", "format": "date-time"},
					},
				},
			},
		},
	}
}
