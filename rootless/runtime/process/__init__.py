"""The process of a container: forked, moved into its namespaces, limited, executed, waited for."""
