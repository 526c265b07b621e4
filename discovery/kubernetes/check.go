package kubernetes

import (
	"encoding/json"
	"fmt"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// Check reads an object of the cluster as a Source does, and says what is wrong with it: a
// manifest.Errors. Kinds and routes that are not for the mesh have nothing wrong, and no
// value.
func Check(object []byte, options manifest.Options) (mesh.Object, error) {
	d := new(documentObject)
	if err := json.Unmarshal(object, d); err != nil {
		return nil, fmt.Errorf("read the object: %w", err)
	}
	for _, k := range documentKinds {
		if d.APIVersion == k.version.String() && d.Kind == string(k.kind) {
			if read := documentOf(k.kind, d.APIVersion, d, options); read != nil {
				return read.object, read.err
			}
		}
	}
	return nil, nil
}
