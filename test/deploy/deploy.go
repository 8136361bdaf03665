// Package deploy reads the manifests of deploy/ as `kubectl apply -k` does.
//
// Its tests hold them to the types of those who define the kinds, to the image that `make image` makes, and to tapbridge's own
// configuration. What only a cluster can say is tested by package e2e, which this package gives the objects. It is a module of its own
// for the sake of those types.
package deploy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/tapbridge/tapbridge/internal/pages"
)

// Base is the part of deploy/ that every cluster takes.
const Base = "."

// Components are the parts that need kinds of others: of Multus, of KubeVirt, of kubernetes-nmstate, of the Prometheus operator.
var Components = []string{"networks", "kubevirt", "bridge", "monitoring"}

// Agent is the part that changes what Base makes, and is nothing without it.
const Agent = "agent"

// Object is one object of a manifest.
type Object struct {
	APIVersion, Kind string
	Namespace, Name  string // the namespace may be empty: that of the user
	YAML             []byte
}

// Build is what one part of deploy/ is made of. The root is that of the source tree.
func Build(root, part string) ([]Object, error) {
	if part == Agent {
		return overlay(root, map[string]any{"components": []string{Agent}})
	}
	return build(filepath.Join(root, "deploy", part))
}

// overlay is a kustomization of Base in a folder of its own. Its components are named as here.
func overlay(root string, kustomization map[string]any) (objects []Object, err error) {
	dir, err := os.MkdirTemp("", "overlay")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	base, err := filepath.Abs(filepath.Join(root, "deploy"))
	if err != nil {
		return nil, err
	}
	up, err := filepath.Rel(dir, base)
	if err != nil {
		return nil, err
	}
	k := maps.Clone(kustomization)
	k["resources"] = []string{up}
	var components []string
	for _, c := range kustomization["components"].([]string) {
		components = append(components, filepath.Join(up, c))
	}
	k["components"] = components
	text, err := yaml.Marshal(k)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return build(dir)
}

func build(folder string) ([]Object, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, fmt.Errorf("kustomize %q: %w", folder, err)
	}
	var objects []Object
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, fmt.Errorf("kustomize %q: %w", folder, err)
		}
		objects = append(objects, Object{r.GetApiVersion(), r.GetKind(), r.GetNamespace(), r.GetName(), text})
	}
	return objects, nil
}

// Manual is what the pages of the manual show of manifests, one object a block. Some are a part of one, without kind and name.
func Manual(root string) (objects []Object, err error) {
	blocks, err := pages.Blocks(root)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if b.Language != "yaml" {
			continue
		}
		var o struct {
			meta.TypeMeta   `json:",inline"`
			meta.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal([]byte(b.Text), &o); err != nil {
			return nil, fmt.Errorf("%s: %w", b, err)
		}
		objects = append(objects, Object{o.APIVersion, o.Kind, o.Namespace, o.Name, []byte(b.Text)})
	}
	return objects, nil
}

// Pod is the pod that the DaemonSet of a part, Base or Agent, gives a node, for a cluster without controllers: on that node, with other
// folders or files of it in the place of those that are mounted, by the name of the volume, and all else as in the manifest.
func Pod(root, part, node string, paths map[string]string) (*core.Pod, error) {
	objects, err := Build(root, part)
	if err != nil {
		return nil, err
	}
	for _, o := range objects {
		if o.Kind != "DaemonSet" {
			continue
		}
		var d apps.DaemonSet
		if err := yaml.UnmarshalStrict(o.YAML, &d); err != nil {
			return nil, fmt.Errorf("%s %q: %w", o.Kind, o.Name, err)
		}
		return podOf(d, node, paths), nil
	}
	return nil, fmt.Errorf("there is no DaemonSet in %q", part)
}

func podOf(d apps.DaemonSet, node string, paths map[string]string) *core.Pod {
	p := &core.Pod{
		TypeMeta:   meta.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: meta.ObjectMeta{Name: d.Name + "-" + node, Namespace: d.Namespace, Labels: d.Spec.Template.Labels},
		Spec:       d.Spec.Template.Spec,
	}
	p.Spec.NodeName = node
	for i, v := range p.Spec.Volumes {
		p.Spec.Volumes[i].HostPath.Path = cmp.Or(paths[v.Name], v.HostPath.Path)
	}
	return p
}
