// Package bench measures the plugin beside its peers, and writes docs/benchmarks.md
// with all of its figures and plots: `make bench`. What must hold of the plugin
// whatever the time it takes is the business of the tests beside its packages.
//
// What is compared is measured in one loop, one run of each after the other, so that
// a machine that is busy for a while is so for all of them; of the whole only ratios
// are worth comparing between machines. Everything happens in fresh network
// namespaces.
//
// The package lives in a module of its own because of the library that draws.
package bench
