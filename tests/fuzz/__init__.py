"""Random inputs for every reader and command, most of them damaged: ``make fuzz``.

``registry`` names the families of cases, ``runner`` runs and judges them, and the other modules are the families. A new
family is a function with the decorator ``@family``, in a module that ``registry.FAMILY_MODULES`` lists.
"""
